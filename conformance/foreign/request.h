/* Reads requests and writes answers of the suite (safetensors files), for backends written in C. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct { char *header; uint8_t *data; } File;
typedef struct { uint8_t *at; size_t bytes, count; char dtype[8], shape[160]; } Tensor;
typedef struct { char *at; size_t len; } Bytes;

static int refuse(const char *why) { printf("unsupported %s\n", why); return 0; }

static void add(Bytes *to, const void *from, size_t len) {
    to->at = realloc(to->at, to->len + len + 1);
    memcpy(to->at + to->len, from, len);
    to->at[to->len += len] = 0;
}

static File load(const char *path) {
    File f = {0};
    FILE *in = fopen(path, "rb");
    uint64_t len;
    if (!in || fread(&len, 8, 1, in) != 1) return f;
    f.header = calloc(len + 1, 1);
    long rest = 0;
    if (fread(f.header, 1, len, in) == len && !fseek(in, 0, SEEK_END)) rest = ftell(in) - 8 - (long)len;
    f.data = calloc(rest + 1, 1);
    if (fseek(in, 8 + (long)len, SEEK_SET) || fread(f.data, 1, rest, in) != (size_t)rest) f.header = 0;
    fclose(in);
    return f;
}

/* The tensor of a name such as p0.init; its count is 0 and `at` null if there is none. */
static Tensor tensor(File f, const char *format, int i) {
    Tensor t = {0};
    char name[64], key[80];
    snprintf(name, sizeof name, format, i);
    snprintf(key, sizeof key, "\"%s\":{", name);
    char *entry = strstr(f.header, key);
    if (!entry) return t;
    char *dtype = strstr(entry, "\"dtype\":\"") + 9;
    snprintf(t.dtype, sizeof t.dtype, "%.*s", (int)strcspn(dtype, "\""), dtype);
    char *shape = strstr(entry, "\"shape\":[") + 9;
    snprintf(t.shape, sizeof t.shape, "%.*s", (int)strcspn(shape, "]"), shape);
    t.count = 1;
    for (char *d = t.shape; *d; d += strcspn(d, ","), d += *d == ',') t.count *= strtoull(d, 0, 10);
    char *offsets = strstr(entry, "\"data_offsets\":[") + 16, *end;
    size_t from = strtoull(offsets, &end, 10);
    t.bytes = strtoull(end + 1, 0, 10) - from;
    t.at = f.data + from;
    return t;
}

/* The answer. */
static Bytes header, data;

/* Rows of elements of this shape, or, with -1 of them, one without the first dimension. */
static void put(const char *name, int i, const char *dtype, int rows, const char *shape, const void *from, size_t bytes) {
    char text[512], first[16] = "";
    size_t at = data.len;
    add(&data, from, bytes);
    if (rows >= 0) snprintf(first, sizeof first, "%d%s", rows, *shape ? "," : "");
    snprintf(text, sizeof text, ",\"p%d.%s\":{\"dtype\":\"%s\",\"shape\":[%s%s],\"data_offsets\":[%zu,%zu]}", i, name,
             dtype, first, shape, at, data.len);
    add(&header, text, strlen(text));
}

static void begin(void) {
    const char *start = "{\"__metadata__\":{\"format\":\"bitstep-answer/1\"";
    header.len = data.len = 0;
    add(&header, start, strlen(start));
}

static int finish(const char *to) {
    add(&header, "}", 1);
    while (header.len % 8) add(&header, " ", 1);
    uint64_t len = header.len;
    FILE *out = fopen(to, "wb");
    int ok = out && fwrite(&len, 8, 1, out) == 1 && fwrite(header.at, 1, len, out) == len &&
             fwrite(data.at, 1, data.len, out) == data.len;
    ok = out && !fclose(out) && ok;
    printf(ok ? "done\n" : "error can't write %s\n", to);
    return 0;
}

/* One line per request: the paths of request and answer, separated by a tab. */
static int serve(int (*answer)(const char *from, const char *to)) {
    static char line[8192];
    while (fgets(line, sizeof line, stdin)) {
        line[strcspn(line, "\n")] = 0;
        char *tab = strchr(line, '\t');
        if (!tab) return 2;
        *tab = 0;
        answer(line, tab + 1);
        fflush(stdout);
    }
    return 0;
}
