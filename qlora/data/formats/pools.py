"""Instructions for data that comes without any: captions, and answers that give their reasons."""

CAPTION = (
    "Describe this image.",
    "What does the picture show?",
    "Give a description of the image.",
    "Tell me what can be seen in this photo.",
    "Write a caption for this image.",
    "What is going on in this picture?",
    "Summarize the content of the image.",
    "Explain to someone who cannot see it what this picture shows.",
    "What do you notice when you look at this photo?",
    "Put the scene in the image into words.",
)

# Appended to a question whose answer goes on with its reasons.
WHY = (
    "Why?",
    "Give the reason for your answer.",
    "Explain how you know.",
    "What makes you think so?",
    "Please justify your choice.",
    "Tell me what leads you to this.",
    "Say why this is right.",
)
