/* The manager's two atomic steps on a line, for a harness without atomics: mark LEAVE, then Idle -> Leaving. */
#include <stdint.h>
int drain(volatile uint32_t *line) {
    uint32_t idle = 2;
    __atomic_fetch_or(&line[3], 2, __ATOMIC_ACQ_REL);
    return __atomic_compare_exchange_n(&line[2], &idle, 4, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);
}
