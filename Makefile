# make demo      install, draw the shapes data, train, evaluate, export, predict; FAST=1: in less time, not as well
# make test      install, lint, check types, test
# make test-core install, lint, check types, then the tests that show a line of dependencies at work
# make install, make lint, make clean
#
# PYTHON=/path/to/python3.12 chooses the interpreter, VENV=folder the place of the environment (.venv). It is made once:
# make_environment.sh sees whether it fits, mends it, and says what is wrong. JOBS=1 tests in one process instead of two,
# each of which comes to need 7 GB of memory.
PYTHON ?=
override JOBS := $(or $(JOBS),2)
override VENV := $(or $(VENV),.venv)
export PYTHON VENV
# Packages that a user has put there for another Python would take the place of the environment's.
unexport PYTHONPATH PYTHONHOME
# In quotes if there are spaces in it.
BIN := $(if $(word 2,$(VENV)),"$(VENV)/bin",$(VENV)/bin)

# By files, because the tests of one file share what it has built.
PYTEST = $(BIN)/python -m pytest -q -n $(JOBS) --dist loadfile

# What the demo draws, trains, and where its results go. With FAST=1 they go elsewhere. SEED gives other initial weights
# and another order of the images.
CONFIG := configs/shapes/kmax_tiny.textproto
DATA := data/shapes
DATA_FLAGS :=
override SEED := $(or $(SEED),1)
OVERRIDES := --override=trainer_options.seed=$(SEED) --override=train_dataset_options.seed=$(SEED)
RUNS := runs
# Found out now, not after the installation.
without_digits = $(subst 0,,$(subst 1,,$(subst 2,,$(subst 3,,$(subst 4,,\
    $(subst 5,,$(subst 6,,$(subst 7,,$(subst 8,,$(subst 9,,$1))))))))))
whole = $(and $(filter 1,$(words $($1))),$(if $(strip $(call without_digits,$($1))),,yes))
$(foreach name,JOBS SEED,$(if $(call whole,$(name)),,$(error $(name)=$($(name)): expected a whole number)))
ifneq (,$(filter-out 0 1,$(FAST)))
$(error FAST=$(FAST): expected 1, or 0 as without it)
endif
ifneq (,$(filter 1,$(FAST)))
DATA := data/shapes_fast
DATA_FLAGS := --num_train=1024 --num_val=64
RUNS := runs/fast
OVERRIDES += --override=train_dataset_options.file_pattern=$(DATA)/train-*.tfrecord \
    --override=eval_dataset_options.file_pattern=$(DATA)/val-*.tfrecord \
    --override=trainer_options.solver_options.training_number_of_steps=300 --override=evaluator_options.eval_interval=300
endif
RUN := $(RUNS)/shapes_kmax_tiny

# What shows that a line of dependencies works: configs, all figures of DeepLab2's, files of earlier releases, data,
# steps of training, exports.
CORE := tests/config tests/model/test_golden_forward.py tests/losses tests/postprocessing tests/checkpoints \
    tests/training/optimizers tests/input_pipeline tests/serving tests/test_releases.py

.PHONY: demo test test-core lint install environment clean

environment:
	@GOAL='$(firstword $(MAKECMDGOALS))' sh make_environment.sh

install: environment
	@echo 'Next: $(BIN)/deeplab2-kmax doctor    # versions, devices, and what is missing'
	@echo '      source $(BIN)/activate    # from then on the command is deeplab2-kmax, without the folder'

demo: environment
	$(BIN)/python -m deeplab2_kmax.converters.shapes --output_dir=$(DATA) $(DATA_FLAGS)
	@test ! -e $(RUN) || echo '$(RUN) is there, and training goes on where it ended; to begin anew: rm -r $(RUN)'
	$(BIN)/python trainer/train.py --config_file=$(CONFIG) --mode=train_and_eval --model_dir=$(RUNS) $(OVERRIDES)
	$(BIN)/python trainer/export_model.py --experiment_option_path=$(CONFIG) --checkpoint_path=$(RUN) --output_path=$(RUN)/export
	$(BIN)/deeplab2-kmax predict $(DATA)/example.png --model=$(RUN)/export --output=$(RUN)/prediction
	@echo
	@echo 'The picture is in $(RUN)/prediction. Next:'
	@echo '  $(BIN)/deeplab2-kmax predict PICTURE --model=$(RUN)/export --output=predictions'
	@echo '  $(BIN)/tensorboard --logdir=$(RUNS)    # losses, metrics and pictures of the run'
	@echo '  source $(BIN)/activate    # from then on the command is deeplab2-kmax, without the folder'
	@echo 'Your own pictures and classes: docs/your_own_dataset.md'

test: environment lint
	$(PYTEST) tests
	@echo 'Next: $(BIN)/python -m pytest -q tests/losses    # the tests of one part; CONTRIBUTING.md tells more'

test-core: environment lint
	$(PYTEST) $(CORE)

lint: environment
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Not runs/: it may hold more than the demo.
clean:
	sh make_environment.sh remove
	rm -rf $(DATA)
