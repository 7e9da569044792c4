"""The world of the embedded demo model: drawn scenes, what is true of them, and talk about them."""
