"""An SMTP server on loopback: takes whatever is handed in and remembers it. As much of RFC 5321 as a client needs."""

import socketserver
import threading
from dataclasses import dataclass
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import Any, Self


@dataclass(frozen=True)
class Mail:
    sender: str
    recipients: list[str]
    message: EmailMessage


class MailServer:
    """Takes every message, but for recipients that begin with ``refused``."""

    def __init__(self) -> None:
        self.mails: list[Mail] = []
        mails = self.mails

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                self.say(220, "mail.example ready")
                sender, recipients = "", []
                while line := self.rfile.readline().decode().strip():
                    verb = line[:4].upper()
                    if verb == "MAIL":
                        sender, recipients = address_in(line), []
                        self.say(250, "ok")
                    elif verb == "RCPT":
                        refused = address_in(line).startswith("refused")
                        recipients += [] if refused else [address_in(line)]
                        self.say(550 if refused else 250, "no such mailbox" if refused else "ok")
                    elif verb == "DATA":
                        self.say(354, "go on")
                        message = message_from_bytes(self.text(), policy=policy.default)
                        mails.append(Mail(sender, recipients, message))
                        self.say(250, "taken")
                    elif verb == "QUIT":
                        self.say(221, "bye")
                        return
                    else:
                        self.say(250, "ok")

            def text(self) -> bytes:
                lines = []
                while (line := self.rfile.readline()) not in (b".\r\n", b""):
                    lines.append(line.removeprefix(b".") if line.startswith(b"..") else line)
                return b"".join(lines)

            def say(self, code: int, text: str) -> None:
                self.wfile.write(f"{code} {text}\r\n".encode())

        self._server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port: int = self._server.server_address[1]
        self.url = f"smtp://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._server.shutdown()
        self._server.server_close()


def address_in(line: str) -> str:
    return line.partition("<")[2].partition(">")[0]
