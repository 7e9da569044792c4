"""The interactive terminal of `lite-chat`: a reader of `Chat.ask` for people.

Contract: `talk` and `answers` serve one-shot and piped use as well and import nothing beyond it;
everything else is imported only when a person sits at the terminal.
"""
