"""Receives events of Plane, verifies them and prints them. Needs `pip install standardwebhooks`.

WEBHOOK_SECRET is the secret that `plane admin webhook set` has printed; PORT is the port to listen on.
"""

import http.server
import os

from standardwebhooks import Webhook, WebhookVerificationError

webhook = Webhook(os.environ["WEBHOOK_SECRET"])
seen: set[str] = set()  # an application keeps these ids in its database, for a day


class Receiver(http.server.BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        try:
            event = webhook.verify(body, dict(self.headers.items()))
        except WebhookVerificationError as error:
            self.send_error(401, str(error))
            return
        # A message that could not be confirmed is sent again with the same id.
        if self.headers["webhook-id"] not in seen:
            seen.add(self.headers["webhook-id"])
            print(event["type"], event["data"], flush=True)
        # Any 2xx confirms the message. Respond within 15 s, and do long work afterwards.
        self.send_response(204)
        self.end_headers()


http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ.get("PORT", "8099"))), Receiver).serve_forever()
