"""The demo's models, trained from nothing: tokenizer, LLaMA, CLIP, then the parts between them."""
