// SPDX-License-Identifier: Apache-2.0
//
// A static program with another libc than all others: musl has its own threads, its own heap and
// its own way to the vdso.
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t wake = PTHREAD_COND_INITIALIZER, done = PTHREAD_COND_INITIALIZER;
static int asked, answered;
static __thread unsigned long own;

static void* work(void* number) {
  own = (unsigned long)number;
  pthread_mutex_lock(&mutex);
  for (;;) {
    while (asked == answered) pthread_cond_wait(&wake, &mutex);
    if (own == 77) answered = asked;
    pthread_cond_signal(&done);
  }
  return NULL;
}

static const char* check(unsigned char* heap, size_t size) {
  struct timespec before, after;
  clock_gettime(CLOCK_MONOTONIC, &before);
  pthread_mutex_lock(&mutex);
  ++asked;
  pthread_cond_signal(&wake);
  while (asked != answered) pthread_cond_wait(&done, &mutex);
  pthread_mutex_unlock(&mutex);
  for (size_t i = 0; i < size; ++i)
    if (heap[i] != (unsigned char)(i * 7)) return "the heap has other contents";
  free(malloc(100000));
  clock_gettime(CLOCK_MONOTONIC, &after);
  return after.tv_sec < before.tv_sec ? "the clock went back" : "ok";
}

int main(void) {
  const size_t size = 1 << 20;
  unsigned char* const heap = malloc(size);
  for (size_t i = 0; i < size; ++i) heap[i] = (unsigned char)(i * 7);
  unsigned secret;
  if (getrandom(&secret, sizeof secret, 0) != sizeof secret) return 1;
  pthread_t thread;
  if (pthread_create(&thread, NULL, work, (void*)77) != 0) return 1;
  puts("ready");
  fflush(stdout);
  for (char line[100]; fgets(line, sizeof line, stdin) != NULL; fflush(stdout))
    if (strcmp(line, "secret?\n") == 0)
      printf("%u\n", secret);
    else
      puts(check(heap, size));
  return 0;
}
