"""Loaded models: names, loads, swaps, the queue of each model, and which tensor of a request goes to which input.

The way of a LoadModel, step by step (how a Predict uses a model: edge.rpc.predict):

    Servicer.load_model          rpc.servicer    steps aside: a load may take minutes
    Models.load                  deploy.adoption waits for models that serve from the start; the first load of one adopts it
    Registry.load                registry        the name is claimed; a load of the same name is waited for
        Loader.load              loading         what follows; `loads` says how many loads may do which step at once
            open_package         package.open    signature, certificate, digests; the model is copied to a sealed memfd
            try_out              opening         the trial in a child process: the engine that serves it, and its memory
            run_selftest         selftest        the package's golden self-test, in a child process too (golden)
            Loader._sessions     loading         memory is claimed, every instance opened, warmed up and wrapped (adapted)
        Aliases.publish          aliases         from now on Predict finds the model under its name
    the call is answered with the model's tensors

The trial's two sides are edge.engine.probe, in the agent, and edge.engine.trial, in the child. Registry.swap goes the same way
beside the model that serves, and ends with Aliases.switch.
"""
