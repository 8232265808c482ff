/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include "icecore/guest.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "area.h"
#include "gpu.h"

enum { kMaxCallbacks = 64, kPage = 4096, kGoOnPatienceMs = 60000 };

struct callback {
  int (*before)(void* user);
  void (*after)(void* user);
  void* user;
};

struct callbacks {
  struct callback all[kMaxCallbacks];
  unsigned count;
};

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_mutex_t notifying = PTHREAD_MUTEX_INITIALIZER; /* while there is a socket */
static pthread_cond_t changed; /* of what follows; with the monotonic clock */
static struct icecore_area* volatile area;
static struct callbacks before, after_restore, after_snapshot;
static uint64_t outcomes; /* how many there were */
static enum icecore_guest_outcome last_outcome;
static unsigned deadline_ms = 10000;
static enum calls { CALLING_NOTHING, CALLING_BEFORE, CALLING_AFTER } calling;
static struct timespec calls_until; /* then icecore_guest_snapshot() waits for them no longer */
static bool given_up;               /* it has: the snapshot is not to be taken any more */
static pthread_once_t once = PTHREAD_ONCE_INIT;

static char* invocation(void) { return (char*)area + ICECORE_AREA_INVOCATION; }

/* ---- time
 * ------------------------------------------------------------------------------------------ */

static struct timespec in_ms(unsigned ms) {
  struct timespec at;
  clock_gettime(CLOCK_MONOTONIC, &at);
  at.tv_sec += ms / 1000;
  at.tv_nsec += (long)(ms % 1000) * 1000000;
  if (at.tv_nsec >= 1000000000) ++at.tv_sec, at.tv_nsec -= 1000000000;
  return at;
}

static bool is_before(const struct timespec* a, const struct timespec* b) {
  return a->tv_sec != b->tv_sec ? a->tv_sec < b->tv_sec : a->tv_nsec < b->tv_nsec;
}

/* ---- the thread
 * ---------------------------------------------------------------------------------- */

static struct callbacks copy_of(const struct callbacks* callbacks) {
  pthread_mutex_lock(&mutex);
  const struct callbacks copy = *callbacks;
  pthread_mutex_unlock(&mutex);
  return copy;
}

static void begin_to_call(enum calls what) {
  pthread_mutex_lock(&mutex);
  calling = what;
  calls_until = in_ms(deadline_ms);
  given_up = false;
  pthread_cond_broadcast(&changed);
  pthread_mutex_unlock(&mutex);
}

/* False when somebody has given up waiting for it. */
static bool end_to_call(void) {
  pthread_mutex_lock(&mutex);
  calling = CALLING_NOTHING;
  const bool in_time = !given_up;
  pthread_mutex_unlock(&mutex);
  return in_time;
}

static uint64_t run_before(void) {
  begin_to_call(CALLING_BEFORE);
  const struct callbacks callbacks = copy_of(&before);
  bool refused = false;
  for (unsigned i = callbacks.count; i-- > 0;)
    if (callbacks.all[i].before(callbacks.all[i].user) != 0) refused = true;
  if (!end_to_call()) refused = true;
  if (!icecore_guest_gpu_put_away()) refused = true;
  return refused ? ICECORE_ANSWER_REFUSED : ICECORE_ANSWER_READY;
}

static void run_after(const struct callbacks* which) {
  icecore_guest_gpu_bring_back();
  begin_to_call(CALLING_AFTER);
  const struct callbacks callbacks = copy_of(which);
  for (unsigned i = 0; i < callbacks.count; ++i) callbacks.all[i].after(callbacks.all[i].user);
}

static void say(enum icecore_guest_outcome outcome) {
  pthread_mutex_lock(&mutex);
  calling = CALLING_NOTHING;
  ++outcomes;
  last_outcome = outcome;
  pthread_cond_broadcast(&changed);
  pthread_mutex_unlock(&mutex);
}

/* 0 when nothing came in time. */
static uint64_t listen_to(int bell, int patience_ms) {
  for (;;) {
    struct pollfd wait = {bell, POLLIN, 0};
    const int count = poll(&wait, 1, patience_ms);
    uint64_t value = 0;
    if (count == 0) return 0;
    if (count > 0 && read(bell, &value, sizeof value) == sizeof value) return value;
    if (count > 0 && errno == EBADF)
      pthread_exit(NULL); /* the program has closed what is not its own */
  }
}

static bool has_rung(int bell) {
  struct pollfd wait = {bell, POLLIN, 0};
  return poll(&wait, 1, 0) == 1;
}

static void* serve(void* unused) {
  (void)unused;
  prctl(PR_SET_NAME, "icecore-guest");
  const int bell = area->bell, answer = area->answer;
  bool prepared = false;
  uint64_t word = 0;
  for (;;) {
    /* Whoever takes a snapshot may have been killed. */
    uint64_t value = listen_to(bell, prepared ? kGoOnPatienceMs : -1);
    if (value == 0) value = ICECORE_BELL_GO_ON;
    /* A sum of what was rung meanwhile: the ends of what was, and a PREPARE of what comes next. */
    if (value >= ICECORE_BELL_RESTORED) {
      run_after(&after_restore);
      say(ICECORE_GUEST_RESTORED);
      prepared = false;
    } else if (value >= ICECORE_BELL_GO_ON) {
      if (prepared) run_after(&after_snapshot);
      say(ICECORE_GUEST_GONE_ON);
      prepared = false;
    }
    if (value % ICECORE_BELL_GO_ON != 0) {
      if (!prepared) word = run_before(); /* else whoever asked before was killed */
      pthread_mutex_lock(&notifying);     /* which is not to be in the snapshot */
      pthread_mutex_unlock(&notifying);
      prepared = true;
      if (has_rung(bell))
        continue; /* whoever asked has given up, and the next one shall not hear */
      if (write(answer, &word, sizeof word) != sizeof word) prepared = true; /* it asks no more */
    }
  }
  return NULL;
}

/* ---- start
 * ----------------------------------------------------------------------------------------- */

/* What `icecore run` passes to a program that starts cold. */
static void read_invocation(void) {
  const char* const path = getenv("ICECORE_INVOCATION");
  const int file = path != NULL ? open(path, O_RDONLY | O_CLOEXEC) : -1;
  if (file < 0) return;
  uint32_t size = 0;
  while (size < ICECORE_AREA_INVOCATION_BYTES - 1) { /* so that the last one ends */
    const ssize_t count = read(file, invocation() + size, ICECORE_AREA_INVOCATION_BYTES - 1 - size);
    if (count <= 0) break;
    size += (uint32_t)count;
  }
  area->invocation_bytes = size;
  close(file);
}

static void fill_random(unsigned char* bytes, size_t size) {
  while (getrandom(bytes, size, 0) != (ssize_t)size) {
  }
}

static void forget_in_child(void) {
  /* The thread is not here.  The descriptors are the parent's, and stay. */
  struct icecore_area* const parents = area;
  area = NULL;
  if (parents != NULL) {
    close(parents->bell);
    close(parents->answer);
    munmap((char*)parents - kPage, ICECORE_AREA_BYTES + 2 * kPage);
  }
  before.count = after_restore.count = after_snapshot.count = 0;
  calling = CALLING_NOTHING;
  icecore_guest_gpu_forget_all();
  pthread_mutex_init(&mutex, NULL);
  pthread_mutex_init(&notifying, NULL);
}

static void set_up(void) {
  pthread_condattr_t attributes;
  pthread_condattr_init(&attributes);
  pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
  pthread_cond_init(&changed, &attributes);
  pthread_condattr_destroy(&attributes);
  pthread_atfork(NULL, NULL, forget_in_child);
}

static bool start_thread(void) {
  sigset_t all, old;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &old);
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
  pthread_t thread;
  const int error = pthread_create(&thread, &attributes, serve, NULL);
  pthread_attr_destroy(&attributes);
  pthread_sigmask(SIG_SETMASK, &old, NULL);
  return error == 0;
}

static struct icecore_area* make_area(void) {
  char* const memory =
      mmap(NULL, ICECORE_AREA_BYTES + 2 * kPage, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) return NULL;
  struct icecore_area* const made = (struct icecore_area*)(memory + kPage);
  if (mprotect(made, ICECORE_AREA_BYTES, PROT_READ | PROT_WRITE) != 0 ||
      madvise(made, ICECORE_AREA_BYTES, MADV_DONTDUMP) != 0) {
    munmap(memory, ICECORE_AREA_BYTES + 2 * kPage);
    return NULL;
  }
  made->bell = eventfd(0, EFD_CLOEXEC);
  made->answer = eventfd(0, EFD_CLOEXEC);
  fill_random(made->id, sizeof made->id);
  made->version = ICECORE_AREA_VERSION;
  return made;
}

/* NULL when there is no memory, descriptor or thread to be had. */
static struct icecore_area* started(void) {
  if (area != NULL) return area;
  pthread_once(&once, set_up);
  pthread_mutex_lock(&mutex);
  if (area == NULL) {
    area = make_area();
    if (area != NULL && (area->bell < 0 || area->answer < 0 || !start_thread())) {
      if (area->bell >= 0) close(area->bell);
      if (area->answer >= 0) close(area->answer);
      munmap((char*)area - kPage, ICECORE_AREA_BYTES + 2 * kPage);
      area = NULL;
    }
    if (area != NULL) {
      read_invocation();
      __atomic_store_n(&area->magic, ICECORE_AREA_MAGIC, __ATOMIC_RELEASE);
    }
  }
  pthread_mutex_unlock(&mutex);
  return area;
}

struct icecore_area* icecore_guest_start(void) {
  return started();
}

/* ---- what programs call
 * ------------------------------------------------------------------------------ */

static bool notify(const char* text) {
  const char* const name = getenv("NOTIFY_SOCKET");
  struct sockaddr_un address;
  if (name == NULL || strlen(name) >= sizeof address.sun_path) return false;
  const int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return false;
  memset(&address, 0, sizeof address);
  address.sun_family = AF_UNIX;
  strcpy(address.sun_path, name);
  if (*name == '@') address.sun_path[0] = '\0';
  const socklen_t size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(name));
  const ssize_t sent =
      sendto(fd, text, strlen(text), MSG_NOSIGNAL, (struct sockaddr*)&address, size);
  close(fd);
  return sent >= 0;
}

enum icecore_guest_outcome icecore_guest_snapshot(unsigned timeout_ms) {
  if (started() == NULL) return ICECORE_GUEST_NOBODY;
  pthread_mutex_lock(&mutex);
  const uint64_t outcomes_before = outcomes;
  const uint64_t generation = area->generation;
  pthread_mutex_unlock(&mutex);
  pthread_mutex_lock(&notifying);
  const bool somebody = notify("ICECORE_SNAPSHOT=1\nREADY=1\n");
  pthread_mutex_unlock(&notifying);
  if (!somebody) return ICECORE_GUEST_NOBODY;

  struct timespec until = in_ms(timeout_ms);
  bool restored = false;
  enum icecore_guest_outcome outcome = ICECORE_GUEST_LATE;
  pthread_mutex_lock(&mutex);
  while (outcomes == outcomes_before) {
    if (!restored && area->generation != generation) { /* what follows has time of its own */
      restored = true;
      until = in_ms(deadline_ms);
    }
    const bool calls_end_it =
        calling == CALLING_AFTER || (calling == CALLING_BEFORE && is_before(&calls_until, &until));
    const struct timespec end = calls_end_it ? calls_until : until;
    const struct timespec now = in_ms(0);
    if (!is_before(&now, &end)) break;
    pthread_cond_timedwait(&changed, &mutex, &end);
  }
  if (outcomes != outcomes_before)
    outcome = last_outcome;
  else if (restored)
    outcome = ICECORE_GUEST_RESTORED;
  else if (calling == CALLING_AFTER)
    outcome = ICECORE_GUEST_GONE_ON;
  else if (calling == CALLING_BEFORE)
    given_up = true;
  pthread_mutex_unlock(&mutex);
  return outcome;
}

uint64_t icecore_guest_generation(void) {
  const volatile uint64_t* const address = icecore_guest_generation_address();
  return address != NULL ? *address : 0;
}

const volatile uint64_t* icecore_guest_generation_address(void) {
  const struct icecore_area* const ours = started();
  return ours != NULL ? &ours->generation : NULL;
}

void icecore_guest_id(unsigned char id[16]) {
  if (started() != NULL)
    memcpy(id, area->id, sizeof area->id);
  else
    fill_random(id, 16);
}

static int add(struct callbacks* callbacks, struct callback callback) {
  if (started() == NULL) return -1;
  pthread_mutex_lock(&mutex);
  const bool fits = callbacks->count < kMaxCallbacks;
  if (fits) callbacks->all[callbacks->count++] = callback;
  pthread_mutex_unlock(&mutex);
  return fits ? 0 : -1;
}

int icecore_guest_before_snapshot(int (*callback)(void* user), void* user) {
  return add(&before, (struct callback){.before = callback, .user = user});
}

int icecore_guest_after_restore(void (*callback)(void* user), void* user) {
  return add(&after_restore, (struct callback){.after = callback, .user = user});
}

int icecore_guest_after_snapshot(void (*callback)(void* user), void* user) {
  return add(&after_snapshot, (struct callback){.after = callback, .user = user});
}

void icecore_guest_set_deadline(unsigned ms) {
  pthread_mutex_lock(&mutex);
  deadline_ms = ms;
  pthread_mutex_unlock(&mutex);
}

/* The string behind `text`, or NULL at the end. */
static const char* next(const char* text) {
  const char* const end = invocation() + area->invocation_bytes;
  text += strnlen(text, (size_t)(end - text)) + 1;
  return text < end ? text : NULL;
}

static const char* first(void) {
  return started() != NULL && area->invocation_bytes != 0 ? invocation() : NULL;
}

const char* icecore_guest_variable(const char* name) {
  const size_t length = strlen(name);
  for (const char* text = first(); text != NULL && *text != '\0'; text = next(text))
    if (strncmp(text, name, length) == 0 && text[length] == '=') return text + length + 1;
  return NULL;
}

const char* icecore_guest_argument(size_t index) {
  const char* text = first();
  while (text != NULL && *text != '\0') text = next(text);
  if (text != NULL) text = next(text);
  for (; text != NULL && index > 0; --index) text = next(text);
  return text;
}

size_t icecore_guest_argument_count(void) {
  size_t count = 0;
  while (icecore_guest_argument(count) != NULL) ++count;
  return count;
}
