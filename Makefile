# `make docs` builds the documentation, `make reference` writes its generated pages, `make picture`
# records the terminal for the README.
#
# The demo model from nothing: `make demo` trains every stage and writes lite/demo/bundle.
#
# Whatever is cut goes on where it was. Same seeds and machine, same bundle. The stages and their
# sizes are in bench/demo/training/; by default they suit two cores, which take some hours. On a GPU
# with 16 cores, `make -j3 demo LONG=1 WORKERS=14` trains longer and takes minutes.
PYTHON ?= python3
RUN = runs/demo
WORKERS ?= 1
# glibc gives every large block back to the system, page by page; kept, a step of alignment takes
# 1.7 s instead of 2.6 s (two cores, Linux; other systems ignore these).
export MALLOC_MMAP_MAX_ = 0
export MALLOC_TRIM_THRESHOLD_ = 8000000000
export GLIBC_TUNABLES = glibc.malloc.hugetlb=1

# QLoRA computes in bfloat16 where the machine multiplies it: COMPUTE=float32 elsewhere.
COMPUTE ?= bfloat16
# Dialogues of each skill for QLoRA, and more of the two that take longest to learn.
EACH = 6000
MORE = 12000

# As the shipped bundle was trained, in what time there was on a GPU; its card has the parts in which
# the resampler's and the instructions' steps were made.
ifdef LONG
LANGUAGE = --steps 1400
TOWER = --steps 1800
RESAMPLER = --steps 9512
ALIGNMENT = --steps 3200 --batch 64
EACH = 700
MORE = 3000
TUNING = training.steps=300 training.warmup=15 training.learning_rate=1e-3 training.text_batch=10 training.accumulate=2
endif

.PHONY: docs reference picture
docs:
	NO_MKDOCS_2_WARNING=1 $(PYTHON) -m mkdocs build --strict

reference:
	PYTHONPATH=. $(PYTHON) docs/scripts/generate.py

picture:
	$(PYTHON) docs/scripts/terminal.py docs/images/terminal.svg

.PHONY: demo
demo: $(RUN)/adapter
	lite-export --llama $(RUN)/llama --clip $(RUN)/clip.json --clip-weights $(RUN)/clip.safetensors \
	  --flamingo $(RUN)/flamingo.safetensors --lora $(RUN)/adapter -o lite/demo/bundle --force
	$(PYTHON) -m bench.demo.examples --answers lite/demo/bundle

$(RUN)/llama/tokenizer.model:
	$(PYTHON) -m bench.demo.training.language $(RUN) --tokenizer

$(RUN)/llama/model.safetensors: $(RUN)/llama/tokenizer.model
	$(PYTHON) -m bench.demo.training.language $(RUN) --workers $(WORKERS) $(LANGUAGE)

$(RUN)/clip.safetensors: $(RUN)/llama/tokenizer.model
	$(PYTHON) -m bench.demo.training.tower $(RUN) --workers $(WORKERS) $(TOWER)

$(RUN)/resampler.safetensors: $(RUN)/clip.safetensors
	$(PYTHON) -m bench.demo.training.resampler $(RUN) --workers $(WORKERS) $(RESAMPLER)

$(RUN)/flamingo.safetensors: $(RUN)/llama/model.safetensors $(RUN)/resampler.safetensors
	$(PYTHON) -m bench.demo.training.alignment $(RUN) --workers $(WORKERS) $(ALIGNMENT)

$(RUN)/data/train/instructions.json:
	$(PYTHON) -m bench.demo.data $(RUN)/data --each $(EACH) --workers $(WORKERS)

$(RUN)/data/more/train/visual.json:
	$(PYTHON) -m bench.demo.data $(RUN)/data/more --seed 1 --each $(MORE) --skill text --skill knowledge --workers $(WORKERS)

$(RUN)/adapter: $(RUN)/flamingo.safetensors $(RUN)/data/train/instructions.json $(RUN)/data/more/train/visual.json
	qlora-train demo model.compute=$(COMPUTE) $(TUNING) $(if $(wildcard $(RUN)/checkpoints),--resume)
