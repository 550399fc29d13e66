// A Socket.IO server: what one visitor says, all hear. Run as `node chat.js`, after `npm install socket.io`.
const http = require("node:http");
const { Server } = require("socket.io");

const PAGE = `<!doctype html>
<title>Chat</title>
<ul id="said"></ul>
<script src="socket.io/socket.io.js"></script>
<script>
  // The path below the page's own address, which begins with the token.
  const socket = io({ path: new URL("socket.io/", location).pathname });
  socket.on("said", (text) => {
    const line = document.createElement("li");
    line.textContent = text;
    document.querySelector("#said").append(line);
  });
</script>`;

const server = http.createServer((request, response) => {
  response.writeHead(200, { "Content-Type": "text/html" });
  response.end(PAGE);
});
const io = new Server(server);
io.on("connection", (socket) => socket.on("say", (text) => io.emit("said", text)));
server.listen(process.env.PORT, "127.0.0.1");
