"""A mail server for one test: takes mail, and writes a line of JSON per mail to standard output.

usage: mail_server.py plain|starttls|tls|login|inject [CERTIFICATE KEY]

The first line it writes is its port. Recipients that begin with "never" are refused for good, with "later" for now. `inject`
puts an answer of its own behind its consent to STARTTLS, in the clear, and goes on as if nothing had been.
"""

import json
import socket
import ssl
import sys
import threading

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, LoginPassword

lock = threading.Lock()


def say(value):
    with lock:
        print(json.dumps(value), flush=True)


class Handler:
    async def handle_RCPT(self, server, session, envelope, address, options):
        if address.startswith("never"):
            return "550 no such user"
        if address.startswith("later"):
            return "451 come again"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope):
        say({
            "from": envelope.mail_from,
            "to": envelope.rcpt_tos,
            "mail": envelope.original_content.decode("latin-1"),
            "tls": session.ssl is not None,
            "user": session.auth_data.decode() if session.auth_data else None,
        })
        return "250 taken"


def authenticate(server, session, envelope, mechanism, data):
    good = isinstance(data, LoginPassword) and (data.login, data.password) == (b"bee", b"honey")
    return AuthResult(success=good, auth_data=data.login, handled=False)


def context(certificate, key):
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.load_cert_chain(certificate, key)
    return made


class Server(Controller):
    def __init__(self, starttls=None, **arguments):
        self.starttls = starttls
        super().__init__(Handler(), hostname="127.0.0.1", **arguments)

    def factory(self):
        return SMTP(self.handler, tls_context=self.starttls, require_starttls=self.starttls is not None,
                    **self.SMTP_kwargs)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def inject(certificate, key):
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        say(listener.getsockname()[1])
        plain, _ = listener.accept()
        plain.sendall(b"220 here\r\n")
        plain.recv(1024)
        plain.sendall(b"250-here\r\n250 STARTTLS\r\n")
        plain.recv(1024)
        plain.sendall(b"220 go on\r\n250-here\r\n250 AUTH PLAIN\r\n")
        try:
            guarded = context(certificate, key).wrap_socket(plain, server_side=True)
            say({"guarded": guarded.recv(1024).decode("latin-1")})
        except OSError as error:
            say({"broken": type(error).__name__})


def main():
    mode, files = sys.argv[1], sys.argv[2:]
    if mode == "inject":
        inject(*files)
        return
    port = free_port()
    if mode == "plain":
        server = Server(port=port)
    elif mode == "tls":
        server = Server(port=port, ssl_context=context(*files))
    else:
        login = {"authenticator": authenticate, "auth_required": True} if mode == "login" else {}
        server = Server(port=port, starttls=context(*files), **login)
    server.start()
    say(port)
    # Until whoever started this closes its standard input.
    sys.stdin.read()
    server.stop()


main()
