// A Node server with what most have: a redirect, a cookie, and a page with relative addresses. Run as `node server.js`.
const http = require("node:http");

http
  .createServer((request, response) => {
    const path = new URL(request.url, "http://localhost").pathname;
    if (path === "/") {
      response.writeHead(302, { Location: "/page", "Set-Cookie": "visited=yes; Path=/" });
      response.end();
    } else if (path === "/page") {
      response.writeHead(200, { "Content-Type": "text/html" });
      response.end('<!doctype html><title>Node</title><a href="who">who am I?</a>');
    } else if (path === "/who") {
      response.writeHead(200, { "Content-Type": "application/json" });
      response.end(JSON.stringify({ user: request.headers["x-verified-username"], cookie: request.headers.cookie }));
    } else {
      response.writeHead(404);
      response.end();
    }
  })
  .listen(process.env.PORT, "127.0.0.1");
