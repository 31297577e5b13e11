"""Completion by bash, which splits words at colons: `db:name` is three to it. Registered on import."""

from click.shell_completion import BashComplete, CompletionItem, add_completion_class


class ColonBashComplete(BashComplete):
    """Bash takes `data:bus` for three words, and replaces the last of them: join them, and answer with the last."""

    _replaced_from = 0

    def get_completion_args(self) -> tuple[list[str], str]:
        """Return the arguments before the cursor, and the one at it."""
        args, incomplete = super().get_completion_args()
        joined: list[str] = []
        for word in [*args, incomplete]:
            if joined and word and (word.startswith(":") or joined[-1].endswith(":")):
                joined[-1] += word
            else:
                joined.append(word)
        if len(joined) > 1 and not incomplete and joined[-2].endswith(":"):
            joined.pop()  # bash has an empty word after the colon
        self._replaced_from = joined[-1].rfind(":") + 1
        return joined[:-1], joined[-1]

    def format_completion(self, item: CompletionItem) -> str:
        """Return the line of one candidate, from the last colon on."""
        return f"{item.type},{item.value[self._replaced_from :]}"


add_completion_class(ColonBashComplete, "bash")
