"""buildkitd.toml."""

import pytest

from brickyard.solver.daemon.config import ConfigError, DiskSpace, load, parse

FULL = """
root = "/var/lib/buildkit"
insecure-entitlements = ["network.host", "security.insecure"]
[log]
  format = "json"
  level = "debug"
[grpc]
  address = ["tcp://0.0.0.0:1234", "unix:///run/x.sock"]
  uid = 0
  gid = 0
  [grpc.tls]
    cert = "/c"
    key = "/k"
    ca = "/a"
[dns]
  nameservers = ["1.1.1.1"]
  searchDomains = ["example.com"]
[history]
  maxAge = 172800
  maxEntries = 7
[worker.oci]
  enabled = true
  platforms = ["linux/amd64", "linux/arm64"]
  gc = true
  reservedSpace = "30%"
  maxUsedSpace = "60%"
  minFreeSpace = "20GB"
  max-parallelism = 4
  [worker.oci.labels]
    "foo" = "bar"
  [[worker.oci.gcpolicy]]
    reservedSpace = "512MB"
    maxUsedSpace = "1GB"
    keepDuration = "48h"
    filters = ["type==source.local"]
  [[worker.oci.gcpolicy]]
    all = true
    reservedSpace = 1024000000
[registry."docker.io"]
  mirrors = ["mirror.example", "second.example/path"]
  http = true
  insecure = true
  ca = ["/etc/ca.pem"]
  [[registry."docker.io".keypair]]
    key = "/key.pem"
    cert = "/cert.pem"
[frontend."dockerfile.v0"]
  enabled = true
[frontend."gateway.v0"]
  enabled = false
  allowedRepositories = ["docker/dockerfile"]
[system]
  platformsCacheMaxAge = "1h"
  maxRegistryConcurrency = 3
"""


def test_every_key_is_read_under_buildkits_name():
    config, warnings = parse(FULL, "x.toml")
    assert warnings == [
        "x.toml: dns: not supported here; the key has no effect",
        "x.toml: system.maxRegistryConcurrency: not supported here; the key has no effect",
    ]
    assert config.root == "/var/lib/buildkit"
    assert config.insecure_entitlements == ["network.host", "security.insecure"]
    assert config.log.format == "json"
    assert config.grpc.address == ["tcp://0.0.0.0:1234", "unix:///run/x.sock"]
    assert config.grpc.tls.ca == "/a"
    assert config.dns.search_domains == ["example.com"]
    assert (config.history.max_age, config.history.max_entries) == (172800.0, 7)
    oci = config.worker.oci
    assert oci.platforms == ["linux/amd64", "linux/arm64"]
    assert oci.max_parallelism == 4
    assert oci.labels == {"foo": "bar"}
    assert oci.reserved_space == DiskSpace(percent=30)
    assert oci.min_free_space == DiskSpace(bytes=20 << 30)
    assert oci.gc_policy[0].keep_duration == 48 * 3600
    assert oci.gc_policy[0].max_used_space == DiskSpace(bytes=1 << 30)
    assert oci.gc_policy[1].all
    assert oci.gc_policy[1].reserved_space == DiskSpace(bytes=1024000000)
    registry = config.registry["docker.io"]
    assert registry.mirrors[1] == "second.example/path"
    assert registry.keypair[0].cert == "/cert.pem"
    assert config.frontend.gateway.allowed_repositories == ["docker/dockerfile"]
    assert not config.frontend.gateway.enabled
    assert config.system.platforms_cache_max_age == 3600
    assert config.system.max_registry_concurrency == 3


@pytest.mark.parametrize(
    ("text", "warning"),
    [
        ("rooot = '/x'", "x.toml: unknown key rooot: did you mean root?"),
        ("[grpc]\nadress = []", "x.toml: unknown key grpc.adress: did you mean grpc.address?"),
        ("[grpc.tls]\nzzz = 1", "x.toml: unknown key grpc.tls.zzz"),
        (
            "[[worker.oci.gcpolicy]]\nkeepduration = '1h'",
            "x.toml: unknown key worker.oci.gcpolicy[0].keepduration: "
            "did you mean worker.oci.gcpolicy[0].keepDuration?",
        ),
        (
            '[registry."a.example:5000"]\nmirror = []',
            'x.toml: unknown key registry."a.example:5000".mirror: did you mean registry."a.example:5000".mirrors?',
        ),
        ("debug = true", "x.toml: 'debug' and 'trace' are old keys: use log.level"),
    ],
)
def test_unknown_keys_are_warned_of_with_the_nearest(text: str, warning: str):
    assert parse(text, "x.toml")[1] == [warning]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("root = [", "x.toml: "),
        ("root = 3", "x.toml: root: "),
        ("[history]\nmaxAge = 'soon'", "history.maxAge: invalid duration 'soon'"),
        ("[worker.oci]\nreservedSpace = 'much'", "worker.oci.reservedSpace: invalid disk space 'much'"),
        ("[system]\nmaxRegistryConcurrency = 0", "system.maxRegistryConcurrency: "),
        ("[worker.oci]\nmax-parallelism = -1", "worker.oci.max-parallelism: "),
    ],
)
def test_wrong_values_are_refused_by_name(text: str, message: str):
    with pytest.raises(ConfigError) as caught:
        parse(text, "x.toml")
    assert message in str(caught.value)


def test_a_file_that_is_not_there(tmp_path):
    assert load(tmp_path / "none.toml", required=False)[0].history.max_entries == 50
    with pytest.raises(ConfigError, match="no such file"):
        load(tmp_path / "none.toml", required=True)


def test_a_share_of_the_disk():
    assert DiskSpace(percent=10).of(100 << 30) == 11 * 10**9
    assert DiskSpace(bytes=5).of(100) == 5
    assert DiskSpace().of(100) == 0
