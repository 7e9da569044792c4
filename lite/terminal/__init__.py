"""The interactive terminal of `lite-chat`: a reader of `Chat.ask` for people.

Contract: `chat_session`, `session_store`, `prefetch` and `printing` also serve single and piped
questions; everything else is imported only for an interactive terminal.
"""
