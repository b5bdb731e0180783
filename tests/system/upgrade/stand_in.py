#!/usr/bin/env python3
"""Stands in for a new release that speaks the protocol (src/upgrade/PROTOCOL.md) up to a point, and then does what SCRIPT says.

SCRIPT is a line of words beside this file: messages to send or to wait for, and `die`, `hang`, `noise`.
"""
import json
import os
import socket
import sys
import time

with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "script")) as script:
    words = script.read().split()

channel = None


def receive(name):
    while True:
        data, descriptors, _, _ = socket.recv_fds(channel, 1 << 16, 64)
        for descriptor in descriptors:
            os.set_inheritable(descriptor, False)
        if not data:
            sys.exit(7)
        if json.loads(data)["message"] == name:
            return


for word in words:
    if word == "die":
        os._exit(9)
    elif word == "hang":
        time.sleep(600)
    elif word == "connect":
        channel = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        channel.connect(os.environ["MIRRORBITS_UPGRADE"])
    elif word == "noise":
        channel.send(b"\xff\x00")
    elif word == "hello":
        channel.send(json.dumps({"message": "hello", "protocols": [1], "release": "stand-in"}).encode())
    elif word == "hello-2":
        channel.send(json.dumps({"message": "hello", "protocols": [2], "release": "stand-in"}).encode())
    elif word == "failed":
        channel.send(json.dumps({"message": "failed", "reason": "no more shelves"}).encode())
    elif word in ("ready", "serving"):
        channel.send(json.dumps({"message": word}).encode())
    elif word in ("listeners", "go", "released"):
        receive(word)
    else:
        sys.exit(f"unknown word {word}")
