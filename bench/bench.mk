.PHONY: bench-spool

bench-spool: venv ## What captures cost: bytes written, fsyncs, captures a second (bytes by device need root)
	@$(PY) -m bench.spool --paced
