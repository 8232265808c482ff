/* SPDX-License-Identifier: Apache-2.0
 *
 * The C interface as an embedder uses it: found by dlopen in a program with threads of its own,
 * which allocate and send each other signals meanwhile, and children that it forks.
 *
 *     c_interface LIBICECORE TARGET FOLDER
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

int main(int count, char** arguments) {
  REQUIRE(count == 4);
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
    execl(arguments[2], arguments[2], (char*)NULL);
    _exit(127);
  }
  close_its_streams(&talk);
  char line[256], secret[256];
  ask(&talk, "", line, sizeof line);
  REQUIRE(strcmp(line, "ready") == 0);
  ask(&talk, "secret?\n", secret, sizeof secret);

  const icecore_snapshot_options how = {.struct_size = sizeof how, .kill = 1, .no_fsync = 1};
  icecore_snapshot_report report = {.struct_size = sizeof report};
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

  stop = 1;
  for (int i = 0; i < 9; ++i) pthread_join(threads[i], NULL);
  REQUIRE(signals > 0 && forks > 0);
  sigaction(SIGUSR1, NULL, &action);
  REQUIRE(action.sa_handler == handler);
  puts("ok");
  return 0;
}
