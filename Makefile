# make demo: install, make the shapes data, train, evaluate, export, predict.   make test: install, lint, check types, test.
# Both create .venv in this folder once and reuse it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUN := runs/shapes_kmax_tiny
CONFIG := configs/shapes/kmax_tiny.textproto

.PHONY: demo test lint install clean

install: $(VENV)/installed

$(VENV)/installed: pyproject.toml setup.py
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -e ".[dev]"
	touch $@

demo: $(VENV)/installed
	$(BIN)/python -m deeplab2_kmax.converters.shapes --output_dir=data/shapes
	rm -rf $(RUN)
	$(BIN)/python trainer/train.py --config_file=$(CONFIG) --mode=train_and_eval --model_dir=runs
	rm -rf $(RUN)/export
	$(BIN)/python trainer/export_model.py --experiment_option_path=$(CONFIG) --checkpoint_path=$(RUN) --output_path=$(RUN)/export
	$(BIN)/deeplab2-kmax predict data/shapes/example.png --model=$(RUN)/export --output=$(RUN)/prediction

test: $(VENV)/installed lint
	$(BIN)/python -m pytest -q tests

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf $(VENV) data/shapes $(RUN)
