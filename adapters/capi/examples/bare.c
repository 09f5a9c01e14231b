/* What a program without an operating system gives the library: here pieces of one array, of which
 * none comes back. A firmware gives its own allocator. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

static uint64_t memory[1 << 21];
static size_t used;

void *bitstep_allocate(size_t size, size_t align) {
    size_t start = (used + align - 1) / align * align;
    if (size > sizeof memory - start) return NULL;
    used = start + size;
    return (char *)memory + start;
}

void bitstep_release(void *what, size_t size, size_t align) {
    (void)what, (void)size, (void)align;
}

void bitstep_abort(void) {
    abort();
}

/* Hosted targets' libcore names this function; nothing calls it where a panic does not unwind. */
void rust_eh_personality(void) {}
