/* The functions that a program without an operating system defines for the library. Here memory comes
 * from one array and is never freed; firmware would use its own allocator. */
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

/* libcore for hosted targets refers to this symbol; it is never called where panics do not unwind. */
void rust_eh_personality(void) {}
