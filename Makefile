# The demo model from nothing: `make demo` trains every stage and writes lite/demo/bundle.
#
# Whatever is cut goes on where it was. Same seeds and machine, same bundle. On two cores without a
# GPU this takes three to four hours; the stages and their sizes are in qlora/demo/training/.
PYTHON ?= python3
RUN = runs/demo
WORKERS ?= 1
# glibc gives every large block back to the system, page by page; kept, a step of alignment takes
# 1.7 s in the place of 2.6 s (two cores, Linux; other systems ignore these).
export MALLOC_MMAP_MAX_ = 0
export MALLOC_TRIM_THRESHOLD_ = 8000000000
export GLIBC_TUNABLES = glibc.malloc.hugetlb=1

# QLoRA computes in bfloat16 where the machine multiplies it: COMPUTE=float32 elsewhere.
COMPUTE ?= bfloat16

.PHONY: demo further
demo: $(RUN)/adapter
	lite-export --llama $(RUN)/llama --clip $(RUN)/clip.json --clip-weights $(RUN)/clip.safetensors \
	  --flamingo $(RUN)/flamingo.safetensors --lora $(RUN)/adapter -o lite/demo/bundle --force
	$(PYTHON) -m qlora.demo.examples --answers lite/demo/bundle

$(RUN)/llama/tokenizer.model:
	$(PYTHON) -m qlora.demo.training.language $(RUN) --tokenizer

$(RUN)/llama/model.safetensors: $(RUN)/llama/tokenizer.model
	$(PYTHON) -m qlora.demo.training.language $(RUN) --workers $(WORKERS)

$(RUN)/clip.safetensors: $(RUN)/llama/tokenizer.model
	$(PYTHON) -m qlora.demo.training.tower $(RUN) --workers $(WORKERS)

$(RUN)/resampler.safetensors: $(RUN)/clip.safetensors
	$(PYTHON) -m qlora.demo.training.resampler $(RUN) --workers $(WORKERS)

$(RUN)/flamingo.safetensors: $(RUN)/llama/model.safetensors $(RUN)/resampler.safetensors
	$(PYTHON) -m qlora.demo.training.alignment $(RUN) --workers $(WORKERS)

$(RUN)/data/train/instructions.json:
	$(PYTHON) -m qlora.demo.data $(RUN)/data --each 6000 --workers $(WORKERS)

$(RUN)/adapter: $(RUN)/flamingo.safetensors $(RUN)/data/train/instructions.json
	qlora-train demo model.compute=$(COMPUTE) $(TUNING) $(if $(wildcard $(RUN)/checkpoints),--resume)

# `make further` goes on from the bundle that is there, as the shipped one was made (two hours on two
# cores with AVX2, COMPUTE=float32): tower and resampler learn together, then the gated blocks where
# to look, then the instructions again.
BEFORE = $(RUN)/before

$(BEFORE)/flamingo.safetensors:
	$(PYTHON) -m export.read_back lite/demo/bundle $(RUN)
	mkdir -p $(BEFORE)
	mv $(RUN)/resampler.safetensors $(RUN)/flamingo.safetensors $(BEFORE)

further: $(BEFORE)/flamingo.safetensors
	$(PYTHON) -m qlora.demo.training.resampler $(RUN) --workers $(WORKERS) --learns teacher \
	  --start $(BEFORE)/resampler.safetensors --steps 60 --rate 4e-3
	$(PYTHON) -m qlora.demo.training.resampler $(RUN) --workers $(WORKERS) --learns all \
	  --start $(RUN)/resampler.safetensors --steps 270 --rate 1e-3
	$(PYTHON) -m qlora.demo.training.alignment $(RUN) --workers $(WORKERS) \
	  --start $(BEFORE)/flamingo.safetensors --steps 400 --rate 1.5e-3
	$(PYTHON) -m qlora.demo.data $(RUN)/data --each 1200 --workers $(WORKERS)
	$(MAKE) demo TUNING="training.steps=150 training.warmup=10 training.learning_rate=1.0e-3"
