/* A TensorFlow Lite external delegate that takes no operator: the engine runs the model as without it.
 *
 * It says on stderr when it is made, prepared and destroyed. Compiled with -DCREATE_FAILS or -DPREPARE_FAILS it fails
 * there, with -DPREPARE_SLEEPS it never comes back, with -DPREPARE_CRASHES it takes the process with it, with
 * -DPREPARE_CRASHES_AFTER=SECONDS so much later: a trial has ended by then, and the agent has not. The struct is
 * TfLiteDelegate of tensorflow/lite/core/c/common.h, whose layout is the plug-in interface's. */
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

struct delegate {
  void *data;
  int (*prepare)(void *context, struct delegate *delegate);
  int (*copy_from_buffer_handle)(void *, struct delegate *, int, void *);
  int (*copy_to_buffer_handle)(void *, struct delegate *, int, void *);
  void (*free_buffer_handle)(void *, struct delegate *, int *);
  int64_t flags;
  void *opaque_delegate_builder;
};

#ifdef PREPARE_CRASHES_AFTER
static void *crash_later(void *nothing) {
  sleep(PREPARE_CRASHES_AFTER);
  raise(SIGSEGV);
  return nothing;
}
#endif

static int prepare(void *context, struct delegate *delegate) {
  (void)context, (void)delegate;
  fprintf(stderr, "test delegate: prepared\n");
#ifdef PREPARE_SLEEPS
  for (;;) pause();
#endif
#ifdef PREPARE_CRASHES
  raise(SIGSEGV);
#endif
#ifdef PREPARE_CRASHES_AFTER
  pthread_t thread;
  pthread_create(&thread, NULL, crash_later, NULL);
#endif
#ifdef PREPARE_FAILS
  return 1; /* kTfLiteError */
#else
  return 0;
#endif
}

struct delegate *tflite_plugin_create_delegate(const char *const *keys, const char *const *values, size_t count,
                                               void (*report_error)(const char *)) {
  (void)keys, (void)values, (void)count;
#ifdef CREATE_FAILS
  report_error("test delegate: no such device");
  return NULL;
#else
  (void)report_error;
  struct delegate *made = calloc(1, sizeof *made);
  made->prepare = prepare;
  fprintf(stderr, "test delegate: made\n");
  return made;
#endif
}

void tflite_plugin_destroy_delegate(struct delegate *delegate) {
  fprintf(stderr, "test delegate: destroyed\n");
  free(delegate);
}
