/*
 * Stands in for libLiteRtRuntimeCApi.so (6 to 9 MB), the engine's newer interface, which the agent does not use. The
 * engine's library wants these names when it is loaded; a call would answer "unsupported".
 */
enum { UNSUPPORTED = 5 };
#define STUB(NAME) __attribute__((visibility("default"))) int NAME(void); int NAME(void) { return UNSUPPORTED; }

STUB(LiteRtCreateCompiledModel)
STUB(LiteRtCreateEnvironment)
STUB(LiteRtCreateOptions)
STUB(LiteRtDestroyCompiledModel)
STUB(LiteRtDestroyEnvironment)
STUB(LiteRtDestroyOptions)
STUB(LiteRtGetCompiledModelEnvironment)
STUB(LiteRtGetCompiledModelInputBufferRequirements)
STUB(LiteRtGetCompiledModelOutputBufferRequirements)
STUB(LiteRtRunCompiledModel)
STUB(LiteRtRunCompiledModelAsync)
STUB(LiteRtSetOptionsHardwareAccelerators)
