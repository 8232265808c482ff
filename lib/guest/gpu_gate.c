/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include <pthread.h>
#include <time.h>

#include "gpu.h"
#include "icecore/guest.h"

enum { kPatienceForUsersS = 5 };

static pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER; /* of `users` and `away` */
static pthread_cond_t gate_changed;
static pthread_once_t gate_once = PTHREAD_ONCE_INIT;
static unsigned users;
static bool away;

static void set_up_gate(void) {
  pthread_condattr_t attributes;
  pthread_condattr_init(&attributes);
  pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
  pthread_cond_init(&gate_changed, &attributes);
  pthread_condattr_destroy(&attributes);
}

void icecore_guest_gpu_enter(void) {
  pthread_once(&gate_once, set_up_gate);
  pthread_mutex_lock(&gate);
  while (away) pthread_cond_wait(&gate_changed, &gate);
  ++users;
  pthread_mutex_unlock(&gate);
}

void icecore_guest_gpu_leave(void) {
  pthread_mutex_lock(&gate);
  if (users > 0 && --users == 0) pthread_cond_broadcast(&gate_changed);
  pthread_mutex_unlock(&gate);
}

void icecore_guest_gpu_open_gate(void) {
  pthread_mutex_lock(&gate);
  away = false;
  pthread_cond_broadcast(&gate_changed);
  pthread_mutex_unlock(&gate);
}

bool icecore_guest_gpu_close_gate(void) {
  struct timespec until;
  clock_gettime(CLOCK_MONOTONIC, &until);
  until.tv_sec += kPatienceForUsersS;
  pthread_once(&gate_once, set_up_gate);
  pthread_mutex_lock(&gate);
  away = true;
  int error = 0;
  while (users > 0 && error == 0) error = pthread_cond_timedwait(&gate_changed, &gate, &until);
  const bool empty = users == 0;
  pthread_mutex_unlock(&gate);
  if (!empty) icecore_guest_gpu_open_gate();
  return empty;
}

void icecore_guest_gpu_forget_gate(void) {
  users = 0;
  away = false;
  pthread_mutex_init(&gate, NULL);
  set_up_gate();
}
