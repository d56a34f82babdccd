"""Builds that any Dockerfile frontend must do alike: the table of test_frontend_image.py.

`@BASE@` in a Dockerfile is the offline base in the test registry, `@GIT@` and `@HTTP@` are the addresses of a Git and a
file server. Processes run without a network.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Scenario:
    """A Dockerfile, the files of its context (name to text), and more flags for `docker buildx build`.

    `env` is for the docker command; `stdin` replaces the context by a Dockerfile on standard input.
    """

    name: str
    dockerfile: str
    files: Mapping[str, str] = field(default_factory=dict)
    flags: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    stdin: bool = False


FILES = {
    "a.txt": "a\n",
    "b.txt": "b\n",
    "deep/er/c.txt": "c\n",
    "deep/d.md": "d\n",
    "run.sh": "#!/bin/sh\necho run\n",
    "node_modules/x.js": "x\n",
}


def same(name: str, dockerfile: str, *flags: str, files: Mapping[str, str] = FILES, **more: object) -> Scenario:
    return Scenario(name, dockerfile, files, flags, **more)  # type: ignore[arg-type]


SAME = [
    same("scratch", "FROM scratch\n"),
    same("base", "FROM @BASE@\n"),
    same("run", "FROM @BASE@\nRUN echo hello > /hello\n"),
    same("run-json", 'FROM @BASE@\nRUN ["/bin/sh", "-c", "echo $0 > /x", "arg"]\n'),
    same("run-continued", "FROM @BASE@\nRUN echo a \\\n  # comment\n  b \\\n\n  > /x\n"),
    same("run-heredoc", "FROM @BASE@\nRUN <<EOF\nset -e\necho $HOME > /x\necho two >> /x\nEOF\n"),
    same("run-heredoc-shebang", "FROM @BASE@\nRUN <<EOF\n#!/bin/sh -e\necho sh > /x\nEOF\n"),
    same("run-heredoc-stdin", "FROM @BASE@\nRUN cat <<EOF > /x\nline $PATH\nEOF\n"),
    same("run-heredoc-two", "FROM @BASE@\nRUN cat <<ONE - <<'TWO' > /x\none\nONE\ntwo $A\nTWO\n"),
    same("run-network-none", "FROM @BASE@\nRUN --network=none ls /sys/class/net > /x\n"),
    same("run-network-host", "FROM @BASE@\nRUN --network=host echo > /x\n", "--allow", "network.host"),
    same("mount-bind", "FROM @BASE@\nRUN --mount=type=bind,target=/in cat /in/a.txt > /x\n"),
    same("mount-bind-file", "FROM @BASE@\nRUN --mount=type=bind,source=deep/d.md,target=/d.md cat /d.md > /x\n"),
    same("mount-bind-stage", "FROM @BASE@ AS one\nRUN echo 1 > /one\nFROM @BASE@\n"
         "RUN --mount=from=one,source=/one,target=/in cat /in > /x\n"),
    same("mount-bind-rw", "FROM @BASE@\nRUN --mount=target=/in,rw echo > /in/new && ls /in > /x\n"),
    same("mount-cache", "FROM @BASE@\nRUN --mount=type=cache,target=/c echo kept >> /c/log && echo done > /x\n"),
    same("mount-cache-options", "FROM @BASE@\nRUN --mount=type=cache,id=k,target=/c,uid=1000,gid=1001,mode=0700,"
         "sharing=locked stat -c %u:%g:%a /c > /x\n"),
    same("mount-cache-from", "FROM @BASE@ AS seed\nRUN mkdir /seed && echo s > /seed/s\nFROM @BASE@\n"
         "RUN --mount=type=cache,target=/c,from=seed,source=/seed cat /c/s > /x\n"),
    same("mount-tmpfs", "FROM @BASE@\nRUN --mount=type=tmpfs,target=/t,size=1m echo > /t/a && echo done > /x\n"),
    same("mount-secret", "FROM @BASE@\nRUN --mount=type=secret,id=k,required=true "
         "test \"$(cat /run/secrets/k)\" = s3cret && echo ok > /x\n", "--secret", "id=k,env=KEY", env={"KEY": "s3cret"}),
    same("mount-secret-env", "FROM @BASE@\nRUN --mount=type=secret,id=k,env=TOKEN test \"$TOKEN\" = s3cret && echo > /x\n",
         "--secret", "id=k,env=KEY", env={"KEY": "s3cret"}),
    same("mount-secret-file", "FROM @BASE@\nRUN --mount=type=secret,id=k,target=/k,uid=5,mode=0440 "
         "stat -c %u:%a /k > /x\n", "--secret", "id=k,env=KEY", env={"KEY": "s3cret"}),
    same("mount-secret-optional", "FROM @BASE@\nRUN --mount=type=secret,id=none ls /run > /x\n"),
    same("mount-ssh", "FROM @BASE@\nRUN --mount=type=ssh,required=true test -S $SSH_AUTH_SOCK && echo ok > /x\n",
         "--ssh", "default"),
    same("copy", "FROM scratch\nCOPY a.txt b.txt /dst/\n"),
    same("copy-all", "FROM scratch\nCOPY . /src/\n"),
    same("copy-ignored", "FROM scratch\nCOPY . /src/\n", files={**FILES, ".dockerignore": "**/*.md\nnode_modules\n!deep/d.md\n"}),
    same("copy-ignored-by-name", "FROM scratch\nCOPY . /src/\n", "-f", "other.Dockerfile",
         files={**FILES, "other.Dockerfile": "FROM scratch\nCOPY . /other/\n", "other.Dockerfile.dockerignore": "*.txt\n",
                ".dockerignore": "deep\n"}),
    same("copy-glob", "FROM scratch\nCOPY *.txt deep/*/c.tx? /dst/\n"),
    same("copy-json", 'FROM scratch\nCOPY ["a.txt", "b.txt", "/with space/"]\n'),
    same("copy-rename", "FROM scratch\nCOPY a.txt /x/renamed\n"),
    same("copy-chmod", "FROM scratch\nCOPY --chmod=0751 run.sh /run.sh\n"),
    same("copy-chown-numbers", "FROM scratch\nCOPY --chown=1000:2000 a.txt /a\n"),
    same("copy-chown-names", "FROM @BASE@\nCOPY --chown=nobody:nobody a.txt /a\n"),
    same("copy-link", "FROM @BASE@\nCOPY --link a.txt /linked/\nCOPY --link --chmod=600 b.txt /linked/\n"),
    same("copy-exclude", "FROM scratch\nCOPY --exclude=*.md --exclude=er deep /d/\n"),
    same("copy-from-stage", "FROM @BASE@ AS one\nRUN echo 1 > /one\nFROM scratch\nCOPY --from=one /one /\nCOPY --from=0 /one /two\n"),
    same("copy-from-image", "FROM scratch\nCOPY --from=@BASE@ /etc/passwd /\n"),
    same("copy-heredoc", "FROM scratch\nCOPY <<one.txt <<-\"two.txt\" /dst/\none $PATH\none.txt\n\ttwo $PATH\n\ttwo.txt\n"),
    same("copy-variable", "FROM scratch\nARG SRC=a.txt\nENV DST=/dst\nCOPY ${SRC} ${DST}/${SRC%.txt}.copy\n"),
    same("add", "FROM scratch\nADD a.txt deep /dst/\n"),
    same("add-http", "FROM scratch\nADD @HTTP@/file.txt /dst/\n"),
    same("add-http-checksum", "FROM scratch\nADD --checksum=@SHA@ --chmod=644 @HTTP@/file.txt /dst/named\n"),
    same("add-http-unpack", "FROM scratch\nADD --unpack=true @HTTP@/archive.tar.gz /dst/\n"),
    same("add-git", "FROM scratch\nADD @GIT@#main /src\n"),
    same("add-git-subdir", "FROM scratch\nADD @GIT@#v1:sub /src\n"),
    same("add-git-keep", "FROM scratch\nADD --keep-git-dir=false @GIT@#main:sub /src\n"),
    same("workdir", "FROM @BASE@\nWORKDIR /a\nWORKDIR b\nRUN pwd > /x\nWORKDIR $PWD/c\n"),
    same("user", "FROM @BASE@\nUSER nobody\nRUN id -un > /tmp/x\nWORKDIR /tmp/w\nUSER 1000:1000\n"),
    same("env", "FROM @BASE@\nENV A=1 B=\"two words\" C=$A-${B}\nENV OLD form with spaces\nRUN env | sort > /x\n"),
    same("env-expansion", "FROM @BASE@\nENV A=a.b.c\nENV B=${A%.*} C=${A##*.} D=${A/b/x} E=${U:-none} F=${A:+set}\nRUN env > /x\n"),
    same("arg", "ARG TAG=1\nFROM @BASE@\nARG TAG\nARG OTHER=o\nRUN echo $TAG $OTHER > /x\n", "--build-arg", "TAG=2"),
    same("arg-unused", "FROM @BASE@\nRUN echo > /x\n", "--build-arg", "NOBODY=wants"),
    same("arg-predefined", "FROM @BASE@\nRUN env > /dev/null && echo > /x\n", "--build-arg", "HTTP_PROXY=http://p"),
    same("arg-platform", "FROM --platform=$BUILDPLATFORM @BASE@ AS b\nARG TARGETARCH\nARG TARGETOS BUILDPLATFORM\n"
         "RUN echo $TARGETOS $TARGETARCH $BUILDPLATFORM > /x\n"),
    same("label", "FROM scratch\nLABEL a=b c=\"d e\" f='$g'\n", "--label", "a=over", "--label", "z=y"),
    same("config", "FROM @BASE@\nEXPOSE 80 53/udp 8000-8002\nVOLUME /data [\"/x\"]\nSTOPSIGNAL SIGUSR1\nUSER 5\n"
         "HEALTHCHECK --interval=5s --retries=2 CMD wget -q localhost\nENTRYPOINT [\"/bin/sh\"]\nCMD [\"-c\", \"ls\"]\n"),
    same("cmd-shell", "FROM @BASE@\nCMD echo $HOME\n"),
    same("entrypoint-clears-cmd", "FROM @BASE@ AS one\nCMD [\"a\"]\nFROM one\nENTRYPOINT [\"b\"]\n"),
    same("shell", "FROM @BASE@\nSHELL [\"/bin/sh\", \"-ec\"]\nRUN echo $0 > /x\nCMD x\n"),
    same("healthcheck-none", "FROM @BASE@\nHEALTHCHECK NONE\n"),
    same("maintainer", "FROM scratch\nMAINTAINER Somebody <a@b.c>\n"),
    same("onbuild", "FROM @BASE@\nONBUILD RUN echo trigger\nONBUILD COPY . /app\n"),
    same("stages-pruned", "FROM @BASE@ AS no\nRUN exit 1\nFROM scratch AS yes\nCOPY a.txt /\n"),
    same("target", "FROM scratch AS one\nCOPY a.txt /\nFROM scratch AS two\nCOPY b.txt /\n", "--target", "one"),
    same("stage-of-stage", "FROM @BASE@ AS a\nRUN echo a > /a\nFROM a AS b\nRUN echo b > /b\nFROM b\nRUN cat /a /b > /c\n"),
    same("diamond", "FROM @BASE@ AS a\nRUN echo a > /a\nFROM a AS l\nRUN echo l > /l\nFROM a AS r\nRUN echo r > /r\n"
         "FROM scratch\nCOPY --from=l /l /\nCOPY --from=r /r /\n"),
    same("escape", "# escape=`\nFROM @BASE@\nRUN echo a `\n  b > /x\nENV P=C:\\dir\n"),
    same("comments", "# one\n\n# two\nFROM scratch\n# three\nCOPY a.txt /\n\n# four\n"),
    same("lower-case", "from @BASE@ as One\nrun echo > /x\n"),
    same("named-context", "FROM scratch\nCOPY --from=other f.txt /\n", "--build-context", "other=@CONTEXT@/deep/er",
         files={**FILES, "deep/er/f.txt": "f\n"}),
    same("named-context-image", "FROM name\nRUN echo > /x\n", "--build-context", "name=docker-image://@BASE@"),
    same("named-context-layout", "FROM name\nRUN echo > /x\n", "--build-context", "name=oci-layout://@LAYOUT@:latest"),
    same("named-context-git", "FROM scratch\nCOPY --from=repo sub /sub\n", "--build-context", "repo=@GIT@#main"),
    same("named-context-stage", "FROM @BASE@ AS one\nRUN exit 1\nFROM scratch\nCOPY --from=one a.txt /\n",
         "--build-context", "one=@CONTEXT@"),
    same("platforms", "FROM scratch\nARG TARGETARCH\nENV ARCH=$TARGETARCH\nCOPY a.txt /$TARGETARCH\n",
         "--platform", "linux/amd64,linux/arm64,linux/arm/v7"),
    same("platform-one", "FROM scratch\nARG TARGETARCH TARGETVARIANT\nENV ARCH=$TARGETARCH$TARGETVARIANT\nCOPY a.txt /\n",
         "--platform", "linux/arm/v7"),
    same("stdin", "FROM @BASE@\nRUN echo stdin > /x\n", stdin=True),
    same("no-cache-filter", "FROM @BASE@ AS a\nRUN echo a > /a\nFROM scratch\nCOPY --from=a /a /\nCOPY a.txt /\n"),
    same("add-host", "FROM @BASE@\nRUN grep -c tower /etc/hosts > /x\n", "--add-host", "tower:10.0.0.9"),
    same("shm-and-ulimit", "FROM @BASE@\nRUN ulimit -n > /x\n", "--shm-size", "32m", "--ulimit", "nofile=512:512"),
    same("sandbox-hostname", "FROM @BASE@\nRUN hostname > /x\n", "--build-arg", "BUILDKIT_SANDBOX_HOSTNAME=tower"),
    same("inline-cache", "FROM scratch\nCOPY a.txt /\n", "--build-arg", "BUILDKIT_MULTI_PLATFORM=1"),
    same("check-skipped", "# check=skip=all\nFROM @BASE@\nENV PASSWORD=x\nCMD echo\n"),
    same("many-steps", "FROM @BASE@\n" + "".join(f"RUN echo {n} > /{n}\n" for n in range(8))),
    same("long-file", "FROM scratch\n" + "".join(f"LABEL l{n}=v{n}\n" for n in range(300))),
    same("crlf", "FROM @BASE@\r\nRUN echo a \\\r\n  b > /x\r\nENV A=b\r\n"),
    same("bom", "\ufeffFROM scratch\nCOPY a.txt /\n"),
]  # fmt: skip


CALLS = [
    same("outline", "# Version of it\nARG VERSION=1\nFROM scratch AS base\n# What is said\nARG WORD\nFROM base AS app\n"
         "RUN --mount=type=secret,id=key,required=true --mount=type=ssh --mount=type=cache,target=/c true\n",
         "--call", "outline"),
    same("outline-json", "ARG VERSION=1\nFROM scratch\n# Doc\nARG OTHER=x\n", "--call", "outline,format=json"),
    same("outline-target", "FROM scratch AS one\nARG A\nFROM scratch AS two\nARG B\n", "--call", "outline", "--target", "one"),
    same("targets", "# first of all\nFROM scratch AS one\nFROM one AS two\nFROM @BASE@\n", "--call", "targets"),
    same("targets-json", "# first: described\nFROM scratch AS one\nFROM one AS two\n", "--call", "targets,format=json"),
    same("check-clean", "FROM scratch\nCOPY a.txt /\n", "--check"),
    same("check-warnings", "from scratch AS Upper\nENV OLD form\nMAINTAINER x\nCMD echo\n", "--check"),
    same("check-json", "FROM scratch AS x\nENV A=$UNSET\nWORKDIR rel\n", "--call", "check,format=json"),
    same("check-error", "# check=error=true\nFROM scratch\nENV PASSWORD=x\n", "--check"),
    same("check-skip", "# check=skip=SecretsUsedInArgOrEnv\nFROM scratch\nENV PASSWORD=x\nMAINTAINER y\n", "--check"),
]  # fmt: skip


@dataclass(frozen=True)
class Failure:
    """A build that fails with both frontends; `says` is a part of what ours answers, `line` where it points to."""

    scenario: Scenario
    says: str
    line: int | None


def fails(name: str, dockerfile: str, says: str, line: int | None, *flags: str) -> Failure:
    return Failure(same(name, dockerfile, *flags), says, line)


FAILURES = [
    fails("unknown-instruction", "FROM scratch\nRNU echo\n", "unknown instruction: RNU", 2),
    fails("unknown-flag", "FROM scratch\nCOPY --form=x a /\n", "unknown flag: --form", 2),
    fails("missing-file", "FROM scratch\nCOPY missing.txt /\n", "missing.txt", 2),
    fails("missing-stage", "FROM scratch\nCOPY --from=5 a /\n", "5", 2),
    fails("missing-target", "FROM scratch\n", "target stage", None, "--target", "none"),
    fails("empty", "# nothing\n", "no instructions", None),
    fails("bad-expansion", "FROM scratch\nENV A=${B?must be set}\n", "must be set", 2),
    fails("run-fails", "FROM @BASE@\nRUN echo before && exit 7\n", "exit code: 7", 2),
    fails("secret-required", "FROM @BASE@\nRUN --mount=type=secret,id=no,required=true true\n", "secret no", 2),
    fails("bad-mount", "FROM @BASE@\nRUN --mount=type=magic,target=/x true\n", "magic", 2),
    fails("heredoc-open", "FROM @BASE@\nRUN <<EOF\necho\n", "unterminated heredoc", 2),
    fails("check-is-error", "# check=error=true\nFROM scratch\nMAINTAINER x\n", "lint violation", None),
]
