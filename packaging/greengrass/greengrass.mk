# Components for AWS IoT Greengrass: recipes into dist/greengrass. BUCKET is where their artefacts will be.
.PHONY: greengrass greengrass-check

GREENGRASS_VERSION ?= 1.$(shell git log -1 --format=%cd --date=format:%Y%m%d).0
BUCKET ?= s3://BUCKET

greengrass: venv ## The Greengrass component's recipe, and with MODEL=x.tar.gz NAME=com.example.x [ALIAS=x] a model's: BUCKET=s3://...
	@$(PY) packaging/greengrass/recipe.py agent --version $(GREENGRASS_VERSION) --bucket $(BUCKET) --out dist/greengrass
ifdef MODEL
	@$(PY) packaging/greengrass/recipe.py model --name $(NAME) --version $(or $(MODEL_VERSION),1.0.0) \
	  --package $(notdir $(MODEL)) $(if $(ALIAS),--alias $(ALIAS)) --bucket $(BUCKET) --out dist/greengrass
endif

greengrass-check: venv ## Deploy both components by a running nucleus lite: GREENGRASS_LITE=its checkout, built; root
	@GREENGRASS_LITE=$(GREENGRASS_LITE) ARCH=$(ARCH) PY=$(PY) packaging/greengrass/check.sh
