"""A model's server for the relay's tests: it waits for an order, takes the port the moment that is free,
signs what it answers with its name, and writes down each request that it executes.

Orders on stdin: `serve MODEL PORT`, `leave` (stop listening and live on, as a server does that shuts
down). On stdout: `up` when it listens. Usage: child.py LEDGER
"""

import json
import os
import socket
import sys
import threading
import time

ledger = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND)
model = ""


def main() -> None:
    global model
    _, model, port = sys.stdin.readline().split()
    listener = take(int(port))
    threading.Thread(target=accept, args=(listener,), daemon=True).start()
    say("up")
    for order in sys.stdin:
        if order.strip() == "leave":
            listener.shutdown(socket.SHUT_RDWR)
            listener.close()
            say("left")


def say(word: str) -> None:
    sys.stdout.write(word + "\n")
    sys.stdout.flush()


def take(port: int) -> socket.socket:
    while True:
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", port))
            listener.listen(128)
            return listener
        except OSError:
            listener.close()
            time.sleep(0.0002)


def accept(listener: socket.socket) -> None:
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        threading.Thread(target=serve, args=(connection,), daemon=True).start()


def serve(connection: socket.socket) -> None:
    rest = b""
    with connection:
        try:
            while True:
                while b"\r\n\r\n" not in rest:
                    data = connection.recv(65536)
                    if not data:
                        return
                    rest += data
                head, _, rest = rest.partition(b"\r\n\r\n")
                headers = {}
                for line in head.split(b"\r\n")[1:]:
                    name, _, value = line.partition(b":")
                    headers[name.lower()] = value.strip()
                length = int(headers[b"content-length"])
                while len(rest) < length:
                    rest += connection.recv(65536)
                body, rest = json.loads(rest[:length]), rest[length:]
                os.write(ledger, b"%s %s %d\n" % (headers[b"x-request-id"], model.encode(), os.getpid()))
                answer(connection, body)
        except OSError:
            return


def answer(connection: socket.socket, body: dict) -> None:
    if body.get("stream"):
        head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
        connection.sendall(head)
        for index in range(int(body.get("chunks", 4))):
            event = b"data: %s\n\n" % json.dumps({"model": model, "index": index}).encode()
            connection.sendall(b"%x\r\n%s\r\n" % (len(event), event))
            time.sleep(float(body.get("interval_s", 0)))
        connection.sendall(b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n")
        return
    time.sleep(float(body.get("delay_s", 0)))
    data = json.dumps({"model": model, "pid": os.getpid()}).encode()
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(data), data))


main()
