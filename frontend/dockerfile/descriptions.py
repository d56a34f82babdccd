"""Comments that describe an ARG or a stage: `# name what it is for`."""

from collections.abc import Iterable, Sequence

from ...grammar.dockerfile.tree import Instruction


def described(node: Instruction, names: Sequence[str]) -> bool:
    """Whether the comment right before an instruction, if there is one, begins with one of the names."""
    if not node.comments or not names:
        return True
    return node.comments[-1].split(" ")[0] in names


def doc_comment(comments: Iterable[str], name: str) -> str:
    """What a comment before an instruction says of a stage or an arg: `# name what it is for`."""
    for comment in comments:
        if name and comment.startswith(f"{name} "):
            return comment[len(name) + 1 :]
    return ""
