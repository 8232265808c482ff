/* SPDX-License-Identifier: Apache-2.0
 *
 * The C interface as an embedder uses it: found by dlopen in a program with threads of its own,
 * which allocate and send each other signals meanwhile, and children that it forks.
 *
 *     c_interface LIBICECORE TARGETS FOLDER FAKE_CUDA
 *
 * Prints "ok", or what was wrong. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <icecore/icecore.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define REQUIRE(condition)                                    \
  do {                                                        \
    if (!(condition)) {                                       \
      printf("wrong at line %d: %s\n", __LINE__, #condition); \
      exit(1);                                                \
    }                                                         \
  } while (0)

static void* library;

static void* find(const char* name) {
  void* const found = dlsym(library, name);
  if (found == NULL) {
    printf("no %s\n", name);
    exit(1);
  }
  return found;
}
#define CALL(name) ((__typeof__(&(name)))find(#name))

static void succeed(icecore_error* error, int line) {
  if (error == NULL) return;
  printf("line %d: %s\n", line, CALL(icecore_error_message)(error));
  exit(1);
}
#define SUCCEED(call) succeed((call), __LINE__)

/* ---- a runtime that is busy
 * ------------------------------------------------------------------------------ */

static atomic_int stop, signals, forks;

static void handler(int number) {
  (void)number;
  ++signals;
}

static void* be_busy(void* unused) {
  (void)unused;
  while (!stop) {
    free(malloc((size_t)(rand() % 100000)));
    pthread_kill(pthread_self(), SIGUSR1);
    usleep(200);
  }
  return NULL;
}

static void* fork_now_and_then(void* unused) {
  (void)unused;
  while (!stop) {
    const pid_t child = fork();
    if (child == 0) _exit(0);
    REQUIRE(child > 0);
    int status = 0;
    while (waitpid(child, &status, 0) == -1 && errno == EINTR) {
    }
    REQUIRE(status == 0);
    ++forks;
    usleep(3000);
  }
  return NULL;
}

/* ---- a program to be snapshotted
 * ---------------------------------------------------------------------------- */

struct conversation {
  int to, from;   /* ours */
  int streams[3]; /* its */
};

static struct conversation begin(void) {
  int in[2], out[2];
  REQUIRE(pipe2(in, O_CLOEXEC) == 0 && pipe2(out, O_CLOEXEC) == 0);
  const struct conversation talk = {in[1], out[0], {in[0], out[1], 2}};
  return talk;
}

static void ask(const struct conversation* talk, const char* question, char* answer, size_t size) {
  REQUIRE(write(talk->to, question, strlen(question)) == (ssize_t)strlen(question));
  size_t count = 0;
  for (;;) {
    const ssize_t got = read(talk->from, answer + count, 1);
    if (got == -1 && errno == EINTR) continue;
    REQUIRE(got == 1);
    if (answer[count] == '\n' || ++count == size - 1) break;
  }
  answer[count] = '\0';
}

static void hang_up(struct conversation* talk) {
  close(talk->to);
  close(talk->from);
}

static void close_its_streams(struct conversation* talk) {
  close(talk->streams[0]);
  close(talk->streams[1]);
}

/* ---- GPUs
 * --------------------------------------------------------------------------------------------------
 */

static pid_t start(struct conversation* talk, char* const* command) {
  *talk = begin();
  const pid_t child = fork();
  if (child == 0) {
    dup2(talk->streams[0], 0);
    dup2(talk->streams[1], 1);
    execv(command[0], command);
    _exit(127);
  }
  close_its_streams(talk);
  char line[64];
  ask(talk, "", line, sizeof line);
  REQUIRE(strcmp(line, "ready") == 0);
  return child;
}

static void end(pid_t child, struct conversation* talk) {
  kill(child, SIGKILL);
  waitpid(child, NULL, 0);
  hang_up(talk);
}

static void expect(icecore_error* error, enum icecore_code code, const char* words) {
  REQUIRE(CALL(icecore_error_code)(error) == code);
  REQUIRE(CALL(icecore_error_reason_count)(error) > 0);
  REQUIRE(strstr(CALL(icecore_error_reason)(error, 0), words) != NULL);
  CALL(icecore_error_free)(error);
}

static void use_gpu(char* target, const char* folder, const char* fake) {
  char daemon[4096], library_path[4096], socket[4096], devices[4096], image_path[4096], line[256];
  snprintf(daemon, sizeof daemon, "%s/gpud", fake);
  snprintf(library_path, sizeof library_path, "%s/libcuda.so.1", fake);
  snprintf(socket, sizeof socket, "%s/gpud", folder);
  snprintf(devices, sizeof devices, "%s/nvidia", folder);
  snprintf(image_path, sizeof image_path, "%s/gpu_image", folder);
  const char* names[] = {"0", "ctl", "-uvm"};
  for (int i = 0; i < 3; ++i) {
    char path[4200];
    snprintf(path, sizeof path, "%s%s", devices, names[i]);
    const int file = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    REQUIRE(file >= 0 && ftruncate(file, 4096) == 0);
    close(file);
  }
  setenv("FAKE_CUDA_DIR", folder, 1);
  setenv("ICECORE_GPU_DEVICES", devices, 1);
  setenv("ICECORE_LIBCUDA", library_path, 1);

  struct conversation with_daemon, talk;
  char* first_gpu[] = {daemon, socket, "1:90:1024", NULL};
  pid_t gpu = start(&with_daemon, first_gpu);
  char* command[] = {target, library_path, "quiet", NULL};
  const pid_t process = start(&talk, command);

  icecore_snapshot_options how = {
      .struct_size = sizeof how, .no_fsync = 1, .gpu = ICECORE_GPU_NONE};
  expect(CALL(icecore_snapshot)(process, image_path, &how, NULL), ICECORE_UNSUPPORTED,
         "--gpu none");
  how.gpu = (enum icecore_gpu)7;
  icecore_error* error = CALL(icecore_snapshot)(process, image_path, &how, NULL);
  REQUIRE(CALL(icecore_error_code)(error) == ICECORE_INVALID_ARGUMENT);
  CALL(icecore_error_free)(error);
  how.gpu = ICECORE_GPU_CHECKPOINT;
  how.gpu_patience_ms = 50;
  ask(&talk, "spin 3000\n", line, sizeof line);
  expect(CALL(icecore_snapshot)(process, image_path, &how, NULL), ICECORE_UNSUPPORTED, "NOT_READY");
  how.gpu_patience_ms = 0; /* 10 s */
  /* Of a caller that is older than the fields of GPUs: the default, and nothing written there. */
  how.struct_size = offsetof(icecore_snapshot_options, gpu);
  how.gpu = ICECORE_GPU_NONE;
  icecore_snapshot_report report = {.struct_size = offsetof(icecore_snapshot_report, gpu_lock_ns),
                                    .gpu_bytes = 42};
  SUCCEED(CALL(icecore_snapshot)(process, image_path, &how, &report));
  REQUIRE(report.image_bytes > 0 && report.gpu_bytes == 42);
  how.struct_size = sizeof how;
  how.gpu = ICECORE_GPU_CHECKPOINT;
  how.kill = 1;
  report.struct_size = sizeof report;
  SUCCEED(CALL(icecore_snapshot)(process, image_path, &how, &report));
  REQUIRE(report.gpu_bytes > 9 << 20 && report.gpu_save_ns > 0 && report.gpu_lock_ns > 0);
  REQUIRE(report.gpu_buffer_bytes == 0);
  waitpid(process, NULL, 0);
  hang_up(&talk);
  end(gpu, &with_daemon);

  char* second_gpu[] = {daemon, socket, "2:90:1024", NULL};
  gpu = start(&with_daemon, second_gpu);
  icecore_image* image = NULL;
  SUCCEED(CALL(icecore_open)(image_path, &image));
  talk = begin();
  const icecore_gpu_pair map[] = {
      {"GPU-10111213-1415-1617-1819-1a1b1c1d1e01", "GPU-10111213-1415-1617-1819-1a1b1c1d1e02"}};
  icecore_restore_options options = {.struct_size = sizeof options,
                                     .pids = ICECORE_PIDS_NAMESPACE,
                                     .standard_streams = talk.streams,
                                     .gpu_move_patience_ms = 60000};
  expect(CALL(icecore_check)(image, &options), ICECORE_INCOMPATIBLE, "is not here");
  options.gpu_map = map;
  options.gpu_map_count = 1;
  SUCCEED(CALL(icecore_check)(image, &options));
  icecore_process* restored = NULL;
  SUCCEED(CALL(icecore_restore)(image, &options, &restored));
  close_its_streams(&talk);
  ask(&talk, "check?\n", line, sizeof line);
  REQUIRE(strcmp(line, "ok") == 0);
  icecore_statistics statistics = {.struct_size = sizeof statistics};
  CALL(icecore_process_statistics)(restored, &statistics);
  REQUIRE(statistics.gpu_bytes == report.gpu_bytes && statistics.gpu_ns > 0);
  kill(CALL(icecore_process_pid)(restored), SIGKILL);
  SUCCEED(CALL(icecore_wait)(restored, NULL));
  CALL(icecore_process_free)(restored);
  CALL(icecore_image_free)(image);
  hang_up(&talk);
  end(gpu, &with_daemon);
}

int main(int count, char** arguments) {
  REQUIRE(count == 5);
  /* Whatever whoever runs the tests has open: the programs are not to inherit it. */
  REQUIRE(close_range(3, ~0U, CLOSE_RANGE_CLOEXEC) == 0);
  char tiny[4096], gpu_buffers[4096];
  snprintf(tiny, sizeof tiny, "%s/tiny", arguments[2]);
  snprintf(gpu_buffers, sizeof gpu_buffers, "%s/gpu_buffers", arguments[2]);
  library = dlopen(arguments[1], RTLD_NOW | RTLD_LOCAL);
  if (library == NULL) printf("%s\n", dlerror());
  REQUIRE(library != NULL);
  char image_path[4096];
  snprintf(image_path, sizeof image_path, "%s/image", arguments[3]);

  struct sigaction action;
  memset(&action, 0, sizeof action);
  action.sa_handler = handler;
  sigaction(SIGUSR1, &action, NULL);
  pthread_t threads[9];
  for (int i = 0; i < 8; ++i) REQUIRE(pthread_create(&threads[i], NULL, be_busy, NULL) == 0);
  REQUIRE(pthread_create(&threads[8], NULL, fork_now_and_then, NULL) == 0);

  /* Errors are objects, with words. */
  icecore_image* image = NULL;
  icecore_error* error = CALL(icecore_open)("/does/not/exist", &image);
  REQUIRE(CALL(icecore_error_code)(error) == ICECORE_IO && image == NULL);
  REQUIRE(CALL(icecore_error_errno)(error) == ENOENT);
  REQUIRE(strstr(CALL(icecore_error_message)(error), "/does/not/exist") != NULL);
  REQUIRE(CALL(icecore_error_reason)(error, 0) == NULL);
  CALL(icecore_error_free)(error);
  CALL(icecore_error_free)(NULL);
  error = CALL(icecore_open)(NULL, &image);
  REQUIRE(CALL(icecore_error_code)(error) == ICECORE_INVALID_ARGUMENT);
  CALL(icecore_error_free)(error);
  REQUIRE(CALL(icecore_error_code)(NULL) == ICECORE_OK);

  struct conversation talk = begin();
  const pid_t target = fork();
  if (target == 0) {
    dup2(talk.streams[0], 0);
    dup2(talk.streams[1], 1);
    execl(tiny, tiny, (char*)NULL);
    _exit(127);
  }
  close_its_streams(&talk);
  char line[256], secret[256];
  ask(&talk, "", line, sizeof line);
  REQUIRE(strcmp(line, "ready") == 0);
  ask(&talk, "secret?\n", secret, sizeof secret);

  icecore_snapshot_options how = {.struct_size = sizeof how, .no_fsync = 1, .copy_on_write = 1};
  icecore_snapshot_report report = {.struct_size = sizeof report};
  SUCCEED(CALL(icecore_snapshot)(target, image_path, &how, &report));
  REQUIRE(report.copied_on_write == 1 && report.frozen_ns < report.total_ns);
  REQUIRE(waitpid(-1, NULL, WNOHANG) == 0); /* there is no other child, and ours has not ended */
  how.kill = 1;
  SUCCEED(CALL(icecore_snapshot)(target, image_path, &how, &report));
  REQUIRE(report.image_bytes > 4096 && report.threads == 1 && report.total_ns > 0);
  waitpid(target, NULL, 0);
  hang_up(&talk);

  SUCCEED(CALL(icecore_open)(image_path, &image));
  const icecore_restore_options anywhere = {.struct_size = sizeof anywhere};
  SUCCEED(CALL(icecore_check)(image, &anywhere));
  const icecore_restore_options half = {.struct_size = 3};
  error = CALL(icecore_check)(image, &half);
  REQUIRE(CALL(icecore_error_code)(error) == ICECORE_INVALID_ARGUMENT);
  CALL(icecore_error_free)(error);

  for (int round = 0; round < 6; ++round) {
    talk = begin();
    const icecore_restore_options options = {.struct_size = sizeof options,
                                             .pids = ICECORE_PIDS_NAMESPACE,
                                             .standard_streams = talk.streams};
    icecore_process* process = NULL;
    if (round % 2 == 0) {
      SUCCEED(CALL(icecore_restore)(image, &options, &process));
    } else {
      icecore_prepared* prepared = NULL;
      SUCCEED(CALL(icecore_prepare)(image, &options, &prepared));
      REQUIRE(CALL(icecore_prepared_pid)(prepared) > 0);
      SUCCEED(CALL(icecore_start)(prepared, &process));
    }
    close_its_streams(&talk);
    ask(&talk, "secret?\n", line, sizeof line);
    REQUIRE(strcmp(line, secret) == 0);
    REQUIRE(CALL(icecore_process_pid)(process) > 0 && CALL(icecore_process_pidfd)(process) >= 0);
    icecore_statistics statistics = {.struct_size = sizeof statistics};
    CALL(icecore_process_statistics)(process, &statistics);
    REQUIRE(statistics.total_ns > 0 && statistics.in_namespace == 1);
    REQUIRE(write(talk.to, "exit 7\n", 7) == 7);
    int status = 0;
    SUCCEED(CALL(icecore_wait)(process, &status));
    REQUIRE(WIFEXITED(status) && WEXITSTATUS(status) == 7);
    CALL(icecore_process_free)(process);
    hang_up(&talk);
  }

  icecore_prepared* prepared = NULL;
  SUCCEED(CALL(icecore_prepare)(image, NULL, &prepared));
  CALL(icecore_prepared_free)(prepared); /* ends it */
  CALL(icecore_image_free)(image);

  use_gpu(gpu_buffers, arguments[3], arguments[4]);

  stop = 1;
  for (int i = 0; i < 9; ++i) pthread_join(threads[i], NULL);
  REQUIRE(signals > 0 && forks > 0);
  sigaction(SIGUSR1, NULL, &action);
  REQUIRE(action.sa_handler == handler);
  puts("ok");
  return 0;
}
