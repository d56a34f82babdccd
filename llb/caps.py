"""The capabilities that ops ask of a solver (BuildKit's solver/pb/caps.go), and the set that one announces."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

SOURCE_IMAGE = "source.image"
SOURCE_IMAGE_RESOLVE_MODE = "source.image.resolvemode"
SOURCE_IMAGE_LAYER_LIMIT = "source.image.layerlimit"
SOURCE_IMAGE_CHECKSUM = "source.image.checksum"
SOURCE_LOCAL = "source.local"
SOURCE_LOCAL_UNIQUE = "source.local.unique"
SOURCE_LOCAL_SESSION_ID = "source.local.sessionid"
SOURCE_LOCAL_FOLLOW_PATHS = "source.local.followpaths"
SOURCE_LOCAL_SHARED_KEY_HINT = "source.local.sharedkeyhint"
SOURCE_LOCAL_INCLUDE_PATTERNS = "source.local.includepatterns"
SOURCE_LOCAL_EXCLUDE_PATTERNS = "source.local.excludepatterns"
SOURCE_LOCAL_DIFFER = "source.local.differ"
SOURCE_LOCAL_METADATA = "source.local.metadatatransfer"
SOURCE_GIT = "source.git"
SOURCE_GIT_KEEP_DIR = "source.git.keepgitdir"
SOURCE_GIT_FULL_URL = "source.git.fullurl"
SOURCE_GIT_HTTP_AUTH = "source.git.httpauth"
SOURCE_GIT_KNOWN_SSH_HOSTS = "source.git.knownsshhosts"
SOURCE_GIT_MOUNT_SSH_SOCK = "source.git.mountsshsock"
SOURCE_GIT_SUBDIR = "source.git.subdir"
SOURCE_GIT_CHECKSUM = "source.git.checksum"
SOURCE_GIT_SKIP_SUBMODULES = "source.git.skipsubmodules"
SOURCE_GIT_SIGNATURE_VERIFY = "source.git.signatureverify"
SOURCE_GIT_MTIME = "source.git.mtime"
SOURCE_GIT_FETCH_BY_COMMIT = "source.git.fetchbycommit"
SOURCE_GIT_BUNDLE = "source.git.bundle"
SOURCE_GIT_CHECKOUT_BUNDLE = "source.git.checkoutbundle"
SOURCE_HTTP = "source.http"
SOURCE_HTTP_AUTH = "source.http.auth"
SOURCE_HTTP_CHECKSUM = "source.http.checksum"
SOURCE_HTTP_PERM = "source.http.perm"
SOURCE_HTTP_UID_GID = "soruce.http.uidgid"
"""BuildKit spells it so."""
SOURCE_HTTP_HEADER = "source.http.header"
SOURCE_HTTP_SIGNATURE_VERIFY = "source.http.signatureverify"
SOURCE_IMAGE_BLOB = "source.imageblob"
SOURCE_OCI_LAYOUT = "source.ocilayout"
BUILD_OP_FILE_NAME = "source.buildop.llbfilename"
EXEC_META_BASE = "exec.meta.base"
EXEC_META_CGROUP_PARENT = "exec.meta.cgroup.parent"
EXEC_META_NETWORK = "exec.meta.network"
EXEC_META_NETWORK_PROXY = "exec.meta.network.proxy"
EXEC_META_PROXY = "exec.meta.proxyenv"
EXEC_META_SECURITY = "exec.meta.security"
EXEC_META_SECURITY_DEVICES = "exec.meta.security.devices.v1"
EXEC_META_SETS_DEFAULT_PATH = "exec.meta.setsdefaultpath"
EXEC_META_ULIMIT = "exec.meta.ulimit"
EXEC_META_CDI = "exec.meta.cdi"
EXEC_META_LINUX_RESOURCES = "exec.meta.linux.resources"
EXEC_MOUNT_BIND = "exec.mount.bind"
EXEC_MOUNT_BIND_NO_OUTPUT = "exec.mount.bind.readwrite-nooutput"
EXEC_MOUNT_CACHE = "exec.mount.cache"
EXEC_MOUNT_CACHE_SHARING = "exec.mount.cache.sharing"
EXEC_MOUNT_SELECTOR = "exec.mount.selector"
EXEC_MOUNT_TMPFS = "exec.mount.tmpfs"
EXEC_MOUNT_TMPFS_SIZE = "exec.mount.tmpfs.size"
EXEC_MOUNT_SECRET = "exec.mount.secret"
EXEC_MOUNT_SSH = "exec.mount.ssh"
EXEC_MOUNT_CONTENT_CACHE = "exec.mount.cache.content"
EXEC_CGROUPS = "exec.cgroup"
EXEC_SECRET_ENV = "exec.secretenv"
EXEC_VALID_EXIT_CODE = "exec.validexitcode"
FILE_BASE = "file.base"
FILE_RM_WILDCARD = "file.rm.wildcard"
FILE_COPY_PATTERNS = "file.copy.includeexcludepatterns"
FILE_COPY_REQUIRED_PATHS = "file.copy.requiredpaths"
FILE_RM_NO_FOLLOW = "file.rm.nofollowsymlink"
FILE_COPY_REPLACE = "file.copy.alwaysreplaceexistingdestpaths"
FILE_COPY_MODE_STRING = "file.copy.modestring"
FILE_SYMLINK = "file.symlink.create"
CONSTRAINTS = "constraints"
PLATFORM = "platform"
META_IGNORE_CACHE = "meta.ignorecache"
META_DESCRIPTION = "meta.description"
META_EXPORT_CACHE = "meta.exportcache"
MERGE_OP = "mergeop"
DIFF_OP = "diffop"
PASSTHROUGH_OP = "passthroughop"
ATTESTATIONS = "exporter.image.attestations"
SOURCE_DATE_EPOCH = "exporter.sourcedateepoch"
SOURCE_POLICY = "source.policy"

KNOWN = frozenset(
    value for name, value in list(globals().items()) if name.isupper() and isinstance(value, str) and name[0] != "_"
)
"""Every capability named here."""
FIRST = frozenset(
    {
        SOURCE_IMAGE,
        SOURCE_LOCAL,
        SOURCE_LOCAL_UNIQUE,
        SOURCE_LOCAL_SESSION_ID,
        SOURCE_LOCAL_INCLUDE_PATTERNS,
        SOURCE_LOCAL_FOLLOW_PATHS,
        SOURCE_LOCAL_EXCLUDE_PATTERNS,
        SOURCE_LOCAL_SHARED_KEY_HINT,
        SOURCE_GIT,
        SOURCE_GIT_KEEP_DIR,
        SOURCE_GIT_FULL_URL,
        SOURCE_HTTP,
        SOURCE_HTTP_CHECKSUM,
        SOURCE_HTTP_PERM,
        SOURCE_HTTP_UID_GID,
        BUILD_OP_FILE_NAME,
        EXEC_META_BASE,
        EXEC_META_PROXY,
        EXEC_MOUNT_BIND,
        EXEC_MOUNT_CACHE,
        EXEC_MOUNT_CACHE_SHARING,
        EXEC_MOUNT_SELECTOR,
        EXEC_MOUNT_TMPFS,
        EXEC_MOUNT_SECRET,
        CONSTRAINTS,
        PLATFORM,
        META_IGNORE_CACHE,
        META_DESCRIPTION,
        META_EXPORT_CACHE,
    }
)
"""What a solver that announces nothing is taken to have: BuildKit's list from before there were announcements."""


class CapError(Exception):
    """Something asked of a solver that it does not have; `cap` names it."""

    def __init__(self, cap: str, reason: str = "") -> None:
        text = "has been disabled on the build server" if reason else "is not supported by the build server: update it"
        super().__init__(f"requested feature {cap} {text}" + (f": {reason}" if reason else ""))
        self.cap = cap


@dataclass(frozen=True, slots=True)
class CapSet:
    """What a solver or gateway announces: `enabled`, and why others are switched off."""

    enabled: frozenset[str]
    disabled: Mapping[str, str] = field(default_factory=dict)

    def __contains__(self, cap: object) -> bool:
        return cap in self.enabled

    def require(self, caps: Iterable[str]) -> None:
        """Raises CapError for the first that is missing."""
        for cap in caps:
            if cap not in self.enabled:
                raise CapError(cap, self.disabled.get(cap, ""))


ALL = CapSet(KNOWN)
"""A solver that has everything."""
