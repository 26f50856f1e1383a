#!/usr/bin/env python3
"""Docker as far as vllm-bench talks to it, and as strict: a daemon that runs containers outside of whoever asked for them, and a client.

    fake_docker.py daemon SOCKET VLLM...    # one image, `fake/vllm:1`, whose program `vllm` is VLLM...
    DOCKER_HOST=SOCKET fake_docker.py run --rm --name N --entrypoint=vllm fake/vllm:1 serve m

As with Docker: a flag that it does not know is refused (125), a container sees only the variables that it is given, a name and a cidfile
can be taken once, a volume must be there, SIGTERM of the client reaches the container's first process and its death reaches nothing."""

import base64
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import threading

IMAGE = "fake/vllm:1"
WITH_VALUE = {"--name", "--label", "--cidfile", "--network", "--log-driver", "--security-opt", "--shm-size", "--cpuset-cpus", "--env",
              "--volume", "--workdir", "--entrypoint", "--pull", "--device", "--group-add", "--cap-add"}
SWITCHES = {"--rm", "--init"}


class Refused(Exception):
    pass


def parse(words):
    options, at = [], 0
    while at < len(words) and words[at].startswith("-"):
        flag, sign, value = words[at].partition("=")
        if flag in SWITCHES and not sign:
            options.append((flag, ""))
        elif flag in WITH_VALUE:
            if not sign:
                at += 1
                value = words[at]
            options.append((flag, value))
        else:
            raise Refused(f"unknown flag: {flag}")
        at += 1
    if at == len(words):
        raise Refused('"docker run" requires at least 1 argument.')
    return options, words[at], words[at + 1:]


class Daemon:
    def __init__(self, vllm):
        self.vllm, self.containers, self.lock = vllm, {}, threading.Lock()

    def serve(self, path):
        server = socket.socket(socket.AF_UNIX)
        server.bind(path)
        server.listen()
        print("ready", flush=True)
        while True:
            connection, _ = server.accept()
            threading.Thread(target=self.answer, args=(connection,), daemon=True).start()

    def answer(self, connection):
        stream = connection.makefile("rw", encoding="utf-8")
        try:
            request = json.loads(stream.readline())
            self.handle(request, lambda **said: (stream.write(json.dumps(said) + "\n"), stream.flush()))
        except (OSError, ValueError):
            pass
        finally:
            connection.close()

    def handle(self, request, say):
        words = request["words"]
        if words[0] == "run":
            return self.run(words[1:], request["env"], say)
        if words[:2] == ["image", "inspect"] and words[2:4] == ["--format", "{{.Id}}"]:
            known = words[4] == IMAGE
            return say(**({"out": text("sha256:" + "ab" * 32 + "\n"), "exit": 0} if known
                          else {"err": text(f"Error: No such image: {words[4]}\n"), "exit": 1}))
        name = words[-1]
        with self.lock:
            container = next((c for c in self.containers.values() if name in (c["name"], c["id"])), None)
        if container is None:
            return say(err=text(f"Error response from daemon: No such container: {name}\n"), exit=1)
        if words[:-1] == ["container", "inspect", "--format", "{{.Id}}"]:
            return say(out=text(container["id"] + "\n"), exit=0)
        if words[:-1] == ["rm", "--force"]:
            self.kill(container, signal.SIGKILL)
            container["gone"].wait(30)
            return say(out=text(name + "\n"), exit=0)
        if words[0] == "kill" and words[1].startswith("--signal="):
            self.kill(container, signal.Signals[words[1].split("=")[1]])
            return say(out=text(name + "\n"), exit=0)
        return say(err=text(f"unknown command: docker {' '.join(words)}\n"), exit=1)

    @staticmethod
    def kill(container, number):
        process = container["process"]
        if number == signal.SIGKILL:
            # Its first process takes the whole PID namespace with it: here all that has the container's mark.
            mark = f"FAKE_CONTAINER={container['id']}".encode()
            for pid in filter(str.isdigit, os.listdir("/proc")):
                try:
                    if mark in open(f"/proc/{pid}/environ", "rb").read().split(b"\0"):
                        os.kill(int(pid), number)
                except OSError:
                    pass
        if process.poll() is None:
            os.kill(process.pid, number)

    def run(self, words, client, say):
        try:
            options, image, args = parse(words)
            one = dict(options)
            if image != IMAGE:
                raise Refused(f"Unable to find image '{image}' locally")
            env = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root"}
            for value in (value for flag, value in options if flag == "--env"):
                name, sign, given = value.partition("=")
                if sign:
                    env[name] = given
                elif name in client:
                    env[name] = client[name]
            for value in (value for flag, value in options if flag == "--volume"):
                if not os.path.exists(value.split(":")[0]):
                    raise Refused(f"bind source path does not exist: {value}")
            if one.get("--entrypoint") != "vllm":
                raise Refused(f'exec: "{one.get("--entrypoint")}": executable file not found in $PATH')
            container = {"id": secrets.token_hex(32), "name": one.get("--name") or secrets.token_hex(8), "gone": threading.Event()}
            env["FAKE_CONTAINER"] = container["id"]
            with self.lock:
                if any(c["name"] == container["name"] for c in self.containers.values()):
                    raise Refused(f'Conflict. The container name "/{container["name"]}" is already in use')
                if "--cidfile" in one:
                    try:
                        with open(one["--cidfile"], "x") as file:
                            file.write(container["id"])
                    except FileExistsError:
                        raise Refused("container ID file found, make sure the other container isn't running") from None
                container["process"] = process = subprocess.Popen(
                    self.vllm + args, env=env, cwd=one.get("--workdir", "/"), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT, start_new_session=True)
                self.containers[container["id"]] = container
        except Refused as refused:
            return say(err=text(f"docker: {refused}\n"), exit=125)
        try:
            say(name=container["name"])
            while block := process.stdout.read1(65536):
                try:
                    say(out=base64.b64encode(block).decode())
                except OSError:
                    pass
            code = process.wait()
            self.kill(container, signal.SIGKILL)
            say(exit=128 - code if code < 0 else code)
        except OSError:
            process.wait()
            self.kill(container, signal.SIGKILL)
        finally:
            with self.lock:
                del self.containers[container["id"]]
            container["gone"].set()


def text(words):
    return base64.b64encode(words.encode()).decode()


def ask(words):
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.connect(os.environ["DOCKER_HOST"])
    except OSError:
        sys.exit("Cannot connect to the Docker daemon. Is the docker daemon running?")
    stream = connection.makefile("rw", encoding="utf-8")
    stream.write(json.dumps({"words": words, "env": dict(os.environ)}) + "\n")
    stream.flush()
    return stream


def client(words):
    stream, name = ask(words), None

    def forward(number, _):
        if name:
            ask(["kill", f"--signal={signal.Signals(number).name}", name]).readline()

    signal.signal(signal.SIGTERM, forward)
    signal.signal(signal.SIGINT, forward)
    for line in stream:
        said = json.loads(line)
        name = said.get("name", name)
        for key, file in (("out", 1), ("err", 2)):
            if key in said:
                os.write(file, base64.b64decode(said[key]))
        if "exit" in said:
            return said["exit"]
    return 125


if __name__ == "__main__":
    if sys.argv[1] == "daemon":
        Daemon(sys.argv[3:]).serve(sys.argv[2])
    sys.exit(client(sys.argv[1:]))
