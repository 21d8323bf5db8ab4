"""Chat templates that render what those of Mistral's repositories render, generation by generation; our own words."""

from __future__ import annotations

_ALTERNATE = (
    "{% if (message.role == 'user') != (loop.index0 is even) %}"
    "{{ raise_exception('user and assistant must take turns') }}{% endif %}"
)
_CARRIES_SYSTEM = (
    "{% if messages[0].role == 'system' %}{% set first, turns = messages[0].content + '\n\n', messages[1:] %}"
    "{% else %}{% set first, turns = '', messages %}{% endif %}"
)


def _template(user: str, answer: str, before: str = "") -> str:
    return (
        before + "{{ bos_token }}{% for message in " + ("turns" if before else "messages") + " %}" + _ALTERNATE + ""
        "{% if message.role == 'user' %}{{ " + user + " }}"
        "{% elif message.role == 'assistant' %}{{ " + answer + " + eos_token }}{% endif %}{% endfor %}"
    )


# Mistral-7B-Instruct-v0.2 up to March 2024 (41b61a33): nothing in front of an answer, no system message.
V02_MARCH = _template("'[INST] ' + message.content + ' [/INST]'", "message.content")
# And since September 2024 (3ad372fc): a blank in front of every turn, a system message before the first question.
V02_SEPTEMBER = _template(
    "' [INST] ' + (first if loop.first else '') + message.content + ' [/INST]'",
    "' ' + message.content",
    _CARRIES_SYSTEM,
)
# Mistral-7B-Instruct-v0.3, whose [INST] and [/INST] are tokens: as mistral-common does, which puts a system message
# before the last question. (What the hub's own template does could not be looked up.)
V03 = _template(
    "'[INST] ' + (first if message == last else '') + message.content + '[/INST]'",
    "' ' + message.content",
    _CARRIES_SYSTEM + "{% set last = (turns | selectattr('role', 'equalto', 'user') | list)[-1] %}",
)
