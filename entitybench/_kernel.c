/* The hot loops of entitybench.
 *
 * Every function here has a twin in NumPy that defines it (see the modules that call
 * `entitybench.kernel`) and gives the same bits.  Rules of this file: C99 and Python's limited
 * API alone; no global state; nothing read or written outside the buffers that are passed in,
 * whatever they hold; the interpreter is let go while numbers are crunched.
 *
 * Pixels are counted in the order of the caller, rows or columns; "map" means the runs of
 * one image, "mask" the runs of one prediction.
 */

#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030B0000
#include <Python.h>

#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#if defined(__GNUC__) && defined(__x86_64__)
#define HAS_POPCNT_VARIANT 1
#define INLINED static inline __attribute__((always_inline))
#define WITH_POPCNT __attribute__((target("popcnt,bmi,bmi2,lzcnt")))
#else
#define INLINED static inline
#endif

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

#define MAX_PIXELS 2147483647u /* run starts are int32 */
#define MAX_TEXT (1u << 27)    /* so that sums of run counts cannot wrap */
#define NUM_AREAS 4
#define MAX_THRESHOLDS 16
#define MAX_DEPTH 128

/* What can be wrong; `entitybench.kernel` has the words. */
enum {
    OK = 0,
    NO_MEMORY,
    RLE_CHARACTER,
    RLE_UNFINISHED,
    RLE_LONG_NUMBER,
    RLE_COUNT,
    RLE_SUM,
    RLE_LIST,
    MAP_DAMAGED,
    TRUTH_OVERLAPS,
    JSON_CHARACTER,
    JSON_END,
    JSON_DEPTH,
    JSON_TYPE,
    JSON_NOT_FINITE,
};

/* ---- bits and memory ---- */

#ifdef HAS_POPCNT_VARIANT
static bool has_popcnt(void)
{
    return __builtin_cpu_supports("popcnt") && __builtin_cpu_supports("bmi") &&
           __builtin_cpu_supports("bmi2") && __builtin_cpu_supports("avx2"); /* and so lzcnt */
}
#endif

INLINED unsigned count_bits(uint64_t word)
{
#if defined(__GNUC__)
    return (unsigned)__builtin_popcountll(word);
#else
    word -= word >> 1 & 0x5555555555555555u;
    word = (word & 0x3333333333333333u) + (word >> 2 & 0x3333333333333333u);
    word = (word + (word >> 4)) & 0x0f0f0f0f0f0f0f0fu;
    return (unsigned)(word * 0x0101010101010101u >> 56);
#endif
}

INLINED unsigned lowest_bit(uint64_t word)
{
#if defined(__GNUC__)
    return (unsigned)__builtin_ctzll(word);
#else
    return count_bits((word & (~word + 1)) - 1);
#endif
}

INLINED uint64_t load64(const uint8_t *at)
{
    uint64_t word;
    memcpy(&word, at, 8);
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    word = (word & 0x00ff00ff00ff00ffu) << 8 | (word >> 8 & 0x00ff00ff00ff00ffu);
    word = (word & 0x0000ffff0000ffffu) << 16 | (word >> 16 & 0x0000ffff0000ffffu);
    word = word << 32 | word >> 32;
#endif
    return word;
}

INLINED void store64(uint8_t *at, uint64_t word)
{
    for (int i = 0; i < 8; i++)
        at[i] = (uint8_t)(word >> 8 * i); /* compilers make one store of it */
}

INLINED unsigned load16(const uint8_t *at)
{
    return at[0] | (unsigned)at[1] << 8;
}

/* A block of memory that only grows. */
typedef struct {
    void *at;
    size_t size;
} Block;

/* Make room for `count` items; what the block held is lost. */
static bool reserve(Block *block, size_t count, size_t item)
{
    if (count > (SIZE_MAX - 64) / item)
        return false;
    if (count * item + 64 <= block->size && block->at)
        return true;
    size_t size = count * item + (count * item >> 2) + 64;
    if (size < count * item)
        return false;
    free(block->at);
    block->at = malloc(size);
    block->size = block->at ? size : 0;
    return block->at != NULL;
}

/* ---- RLE text to runs ---- */

typedef struct {
    uint32_t start, end;
} Run;

/* Where a mask's text is: `kind` as the scanner reports it. */
enum { SEGMENT_NONE, SEGMENT_TEXT, SEGMENT_ESCAPED, SEGMENT_LIST, SEGMENT_POLYGONS };

#define BYTES(value) (0x0101010101010101u * (value))

/* Turn eight characters 48…111 into groups 0…63; sets bits in `bad` for any other. */
INLINED uint64_t groups_of(uint64_t characters, uint64_t *bad)
{
    uint64_t shifted = characters + BYTES(16); /* 64…127 if valid; a carry means bit 7 is set */
    *bad |= (characters & BYTES(0x80)) | ((shifted & BYTES(0xc0)) ^ BYTES(0x40));
    return shifted & BYTES(0x3f);
}

/* The highest bit of the first byte that is a backslash; of later bytes it says nothing. */
INLINED uint64_t find_backslash(uint64_t word)
{
    uint64_t zero = word ^ BYTES('\\');
    return (zero - BYTES(1)) & ~zero & BYTES(0x80);
}

static unsigned hex_value(const uint8_t *at)
{
    unsigned value = 0;
    for (int i = 0; i < 4; i++)
        value = value << 4 | ((at[i] <= '9' ? at[i] - '0' : (at[i] | 32) - 'a' + 10) & 15u);
    return value;
}

/* The character that a JSON escape stands for, or 255; `*used` is its length. In valid RLE only
 * \\ and \u00XX occur. */
static uint8_t escaped_character(const uint8_t *text, size_t size, size_t *used)
{
    *used = size < 2 ? 1 : 2;
    if (size >= 6 && text[1] == 'u') {
        unsigned value = hex_value(text + 2);
        *used = 6;
        return value < 128 ? (uint8_t)value : 255;
    }
    return size >= 2 && text[1] == '\\' ? '\\' : 255;
}

/* Turn characters into groups, resolving JSON's escapes where `escaped`; returns their number.
 * `groups` has room for 16 more than `size`, and gets zeros behind. */
INLINED size_t to_groups(const uint8_t *text, size_t size, bool escaped, uint8_t *groups,
                         uint64_t *bad)
{
    size_t from = 0, to = 0;
    while (from < size) {
        uint8_t last[8] = {'0', '0', '0', '0', '0', '0', '0', '0'};
        size_t plain = size - from < 8 ? size - from : 8, used = 0;
        if (plain < 8)
            memcpy(last, text + from, plain);
        uint64_t word = load64(plain < 8 ? last : text + from), other = 0;
        uint64_t backslash = escaped ? find_backslash(word) : 0;
        if (backslash) {
            plain = lowest_bit(backslash) >> 3;
            uint8_t character = escaped_character(text + from + plain, size - from - plain, &used);
            uint64_t shift = 8 * plain;
            word = (word & (((uint64_t)1 << shift) - 1)) | BYTES('0') << shift;
            word ^= (uint64_t)('0' ^ character) << shift;
            other = 1;
        }
        store64(groups + to, groups_of(word, bad));
        from += plain + used;
        to += plain + other;
    }
    store64(groups + to, 0);
    return to;
}

/* Join the five-bit groups of one number of `width` groups, with its sign. What follows the
 * number in the word is shifted out. */
INLINED int64_t join_groups(uint64_t word, unsigned width)
{
    unsigned empty = 64 - 5 * width;
    if (width <= 3) { /* nearly always: it says up to 16,383 */
        word = (word & 0x1f) | (word >> 3 & 0x3e0) | (word >> 6 & 0x7c00);
        return (int64_t)(word << empty) >> empty;
    }
    word &= 0x1f1f1f1f1f1f1f1fu;
    word = (word & 0x001f001f001f001fu) | (word & 0x1f001f001f001f00u) >> 3;
    word = (word & 0x000003ff000003ffu) | (word & 0x03ff000003ff0000u) >> 6;
    word = (word & 0x00000000000fffffu) | (word & 0x000fffff00000000u) >> 12;
    return (int64_t)(word << empty) >> empty;
}

/* Read the number at `groups`, at most eight groups of it; returns its width. */
INLINED size_t next_number(const uint8_t *groups, int64_t *value, uint64_t *too_long)
{
    uint64_t word = load64(groups), stops = (~word & BYTES(0x20)) | (uint64_t)0x20 << 56;
    unsigned width = (lowest_bit(stops) + 3) >> 3; /* a stop is bit 5 of its byte */
    *too_long |= width > 7;
    *value = join_groups(word, width);
    return width;
}

/* Read all numbers. Where one ends is known only when it is read, so two halves of the text are
 * read at a time: neither waits for the other. */
INLINED int read_numbers(const uint8_t *groups, size_t size, int64_t *values, size_t *count)
{
    uint64_t too_long = 0;
    size_t middle = size / 2, a = 0, na = 0, nb = 0;
    while (middle > 0 && middle < size && groups[middle - 1] & 0x20)
        middle++;
    int64_t *second = values + middle; /* the first half has no more numbers than characters */
    size_t b = middle;
    while (a < middle && b < size) {
        a += next_number(groups + a, values + na++, &too_long);
        b += next_number(groups + b, second + nb++, &too_long);
    }
    while (a < middle)
        a += next_number(groups + a, values + na++, &too_long);
    while (b < size)
        b += next_number(groups + b, second + nb++, &too_long);
    memmove(values + na, second, nb * sizeof *values);
    *count = na + nb;
    if (too_long)
        return RLE_LONG_NUMBER;
    return a == middle && b == size ? OK : RLE_UNFINISHED;
}

/* Read a JSON list of counts as the differences that compressed text would hold. */
static int read_list(const uint8_t *text, size_t size, int64_t *values, size_t *count)
{
    int64_t counts[2] = {0, 0};
    size_t n = 0;
    for (size_t i = 0; i < size;) {
        if (text[i] < '0' || text[i] > '9') {
            if (text[i] == '-' || text[i] == '.' || (text[i] | 32) == 'e' || text[i] == '"' ||
                (i > 0 && text[i] == '[') || text[i] == '{')
                return RLE_LIST;
            i++;
            continue;
        }
        int64_t value = 0;
        for (; i < size && text[i] >= '0' && text[i] <= '9'; i++)
            value = value > MAX_PIXELS ? value : value * 10 + (text[i] - '0');
        values[n] = n > 2 ? value - counts[n & 1] : value;
        counts[n++ & 1] = value;
    }
    *count = n;
    return OK;
}

/* A mask as ascending disjoint runs that have a pixel. */
typedef struct {
    Run *runs;
    size_t num_runs;
    uint64_t area;
} Mask;

/* The last gap: the sum of the differences at even places, the first count apart. */
static int64_t sum_of_gaps(const int64_t *values, size_t count)
{
    uint64_t gap = 0;
    for (size_t i = 2; i < count; i += 2)
        gap += (uint64_t)values[i];
    return (int64_t)gap;
}

/* Undo the differences (each count but the first three is told as the difference to the count
 * two before) and keep the runs of 1 that have a pixel. */
INLINED int runs_of_differences(int64_t *values, size_t count, uint64_t pixels, Mask *mask)
{
    uint64_t gap = 0, length = 0, area = 0, at = count ? (uint64_t)values[0] : 0;
    uint64_t bad = at >> 31; /* negative, or larger than any image */
    Run *runs = mask->runs;
    size_t found = 0;
    if (count % 2 == 0) /* a last run without a gap behind: say that the gap is 0 */
        values[count] = count > 2 ? -sum_of_gaps(values, count) : 0;
    for (size_t i = 1; i < count; i += 2) {
        length += (uint64_t)values[i];
        gap += (uint64_t)values[i + 1];
        bad |= (length | gap) >> 31;
        runs[found] = (Run){(uint32_t)at, (uint32_t)(at + length)};
        found += length != 0;
        area += length;
        at += length + gap;
    }
    mask->num_runs = found;
    mask->area = area;
    if (bad)
        return RLE_COUNT;
    return at == pixels ? OK : RLE_SUM;
}

typedef struct {
    Block groups, values, runs;
} MaskReader;

static void free_reader(MaskReader *reader)
{
    free(reader->groups.at);
    free(reader->values.at);
    free(reader->runs.at);
}

/* Read one mask's text as ascending disjoint runs inside an image of `pixels`. */
INLINED int read_mask(MaskReader *reader, const uint8_t *text, size_t size, int kind,
                      uint64_t pixels, Mask *mask)
{
    if (size > MAX_TEXT)
        return RLE_COUNT;
    if (!reserve(&reader->groups, size + 24, 1) || !reserve(&reader->values, size + 4, 8) ||
        !reserve(&reader->runs, size / 2 + 2, sizeof(Run)))
        return NO_MEMORY;
    size_t count = 0;
    uint64_t bad = 0;
    int status;
    if (kind == SEGMENT_LIST) {
        status = read_list(text, size, reader->values.at, &count);
    } else {
        size = to_groups(text, size, kind == SEGMENT_ESCAPED, reader->groups.at, &bad);
        if (bad)
            return RLE_CHARACTER;
        status = read_numbers(reader->groups.at, size, reader->values.at, &count);
    }
    if (status)
        return status;
    mask->runs = reader->runs.at;
    return runs_of_differences(reader->values.at, count, pixels, mask);
}

/* ---- maps: packed, and with an index by pixel ---- */

/* One image of compiled truth. A packed map is `num_runs` lengths of 16 bits, then as many ids of
 * `id_width` bytes, all little-endian. Neighbours may share an id: that is how a run of more
 * than 65,535 pixels is written. */
typedef struct {
    int64_t offset;   /* of the packed map */
    int64_t first_id; /* of the image's row among the tables by id */
    uint64_t check;
    uint32_t num_runs, height, width, num_entities, num_crowds, id_width;
} ImageEntry;

/* Runs with a bit for each run start and the number of starts before each word: the run of any
 * pixel is found without a search. */
typedef struct {
    uint32_t *starts; /* num_runs + 1 of them, the last is `pixels` */
    uint32_t *ids;
    uint64_t *bits;
    uint32_t *before;
    size_t num_runs;
    uint64_t pixels;
    Block starts_block, ids_block, bits_block, before_block;
} MapIndex;

static void free_index(MapIndex *map)
{
    free(map->starts_block.at);
    free(map->ids_block.at);
    free(map->bits_block.at);
    free(map->before_block.at);
}

static size_t num_words(uint64_t pixels)
{
    return (size_t)(pixels / 64) + 1;
}

static bool reserve_index(MapIndex *map, size_t num_runs, uint64_t pixels)
{
    size_t words = num_words(pixels);
    if (!reserve(&map->starts_block, num_runs + 1, 4) || !reserve(&map->ids_block, num_runs + 1, 4) ||
        !reserve(&map->bits_block, words, 8) || !reserve(&map->before_block, words, 4))
        return false;
    map->starts = map->starts_block.at;
    map->ids = map->ids_block.at;
    map->bits = map->bits_block.at;
    map->before = map->before_block.at;
    map->num_runs = num_runs;
    map->pixels = pixels;
    memset(map->bits, 0, words * 8);
    return true;
}

INLINED void count_starts(MapIndex *map)
{
    uint32_t before = 0;
    size_t words = num_words(map->pixels);
    for (size_t w = 0; w < words; w++) {
        map->before[w] = before;
        before += count_bits(map->bits[w]);
    }
}

INLINED void mark_start(MapIndex *map, uint64_t pixel)
{
    map->bits[pixel >> 6] |= (uint64_t)1 << (pixel & 63);
}

INLINED uint32_t run_at(const MapIndex *map, uint32_t pixel)
{
    uint64_t upto = map->bits[pixel >> 6] << (63 - (pixel & 63));
    return map->before[pixel >> 6] + count_bits(upto) - 1;
}

static uint64_t checksum(const uint8_t *data, size_t size)
{
    const uint64_t factor = 0x9e3779b97f4a7c15u;
    uint64_t lane[4] = {size, 1, 2, 3};
    size_t i = 0;
    for (; i + 32 <= size; i += 32)
        for (int k = 0; k < 4; k++) {
            lane[k] = (lane[k] ^ load64(data + i + 8 * k)) * factor;
            lane[k] ^= lane[k] >> 29;
        }
    for (; i < size; i++)
        lane[0] = (lane[0] ^ data[i]) * factor;
    uint64_t sum = 0;
    for (int k = 0; k < 4; k++)
        sum = (sum ^ lane[k]) * factor ^ sum >> 31;
    return sum;
}

INLINED uint32_t packed_id(const uint8_t *ids, size_t run, unsigned width)
{
    if (width == 1)
        return ids[run];
    if (width == 2)
        return load16(ids + 2 * run);
    return load16(ids + 4 * run) | (uint32_t)load16(ids + 4 * run + 2) << 16;
}

INLINED bool unpack_runs(MapIndex *map, const uint8_t *lengths, unsigned width, uint32_t num_ids)
{
    const uint8_t *ids = lengths + 2 * map->num_runs;
    uint64_t position = 0;
    uint32_t largest = 0;
    for (size_t run = 0; run < map->num_runs; run++) {
        if (position >= map->pixels)
            return false;
        uint32_t id = packed_id(ids, run, width);
        map->starts[run] = (uint32_t)position;
        map->ids[run] = id;
        largest = id > largest ? id : largest;
        mark_start(map, position);
        unsigned length = load16(lengths + 2 * run);
        if (length == 0)
            return false;
        position += length;
    }
    map->starts[map->num_runs] = (uint32_t)position;
    return position == map->pixels && largest <= num_ids;
}

static uint64_t entry_pixels(const ImageEntry *entry)
{
    return (uint64_t)entry->height * entry->width;
}

/* Whether the entry points inside the data and says possible things. */
static bool entry_fits(const ImageEntry *entry, size_t packed_size)
{
    uint64_t pixels = entry_pixels(entry);
    if (pixels == 0 || pixels > MAX_PIXELS || entry->height > MAX_PIXELS ||
        entry->width > MAX_PIXELS || entry->num_runs == 0 || entry->num_runs > pixels ||
        entry->num_entities > MAX_PIXELS || entry->num_crowds > MAX_PIXELS)
        return false;
    if (entry->id_width != 1 && entry->id_width != 2 && entry->id_width != 4)
        return false;
    uint64_t size = (uint64_t)entry->num_runs * (2 + entry->id_width);
    return entry->offset >= 0 && (uint64_t)entry->offset <= packed_size &&
           size <= packed_size - (uint64_t)entry->offset;
}

INLINED int unpack_map(MapIndex *map, const uint8_t *packed, size_t packed_size,
                       const ImageEntry *entry)
{
    if (!entry_fits(entry, packed_size))
        return MAP_DAMAGED;
    const uint8_t *data = packed + entry->offset;
    if (checksum(data, (size_t)entry->num_runs * (2 + entry->id_width)) != entry->check)
        return MAP_DAMAGED;
    if (!reserve_index(map, entry->num_runs, entry_pixels(entry)))
        return NO_MEMORY;
    uint32_t num_ids = entry->num_entities + entry->num_crowds;
    bool sound = entry->id_width == 1   ? unpack_runs(map, data, 1, num_ids)
                 : entry->id_width == 2 ? unpack_runs(map, data, 2, num_ids)
                                        : unpack_runs(map, data, 4, num_ids);
    count_starts(map);
    return sound ? OK : MAP_DAMAGED;
}

/* Index runs given as int32 arrays: ascending from 0, ids in 0…num_ids. */
INLINED int index_runs(MapIndex *map, const int32_t *starts, const int32_t *ids, size_t num_runs,
                       uint64_t pixels, uint32_t num_ids)
{
    if (pixels == 0 || pixels > MAX_PIXELS || num_runs == 0 || num_runs > pixels)
        return MAP_DAMAGED;
    if (!reserve_index(map, num_runs, pixels))
        return NO_MEMORY;
    int64_t last = -1;
    for (size_t run = 0; run < num_runs; run++) {
        if (starts[run] <= last || starts[run] >= (int64_t)pixels || ids[run] < 0 ||
            (uint32_t)ids[run] > num_ids)
            return MAP_DAMAGED;
        last = starts[run];
        map->starts[run] = (uint32_t)last;
        map->ids[run] = (uint32_t)ids[run];
        mark_start(map, (uint64_t)last);
    }
    map->starts[num_runs] = (uint32_t)pixels;
    count_starts(map);
    return starts[0] == 0 ? OK : MAP_DAMAGED;
}

/* ---- one mask against a map ---- */

/* Set the pixels of a run; bits of `twice` are set where some were set before. */
INLINED void paint_run(uint64_t *painted, uint32_t start, uint32_t last, uint64_t *twice)
{
    size_t first_word = start >> 6, last_word = last >> 6;
    uint64_t one_word = (uint64_t)0 - (first_word == last_word);
    uint64_t from = ~(uint64_t)0 << (start & 63), upto = ~(uint64_t)0 >> (63 - (last & 63));
    from &= upto | ~one_word;
    upto &= ~one_word;
    *twice |= painted[first_word] & from;
    painted[first_word] |= from;
    *twice |= painted[last_word] & upto;
    painted[last_word] |= upto;
    for (size_t w = first_word + 1; w < last_word; w++) {
        *twice |= painted[w];
        painted[w] = ~(uint64_t)0;
    }
}

/* Set a mask's pixels and tell whether any was set before. */
INLINED bool paint(uint64_t *painted, const Run *runs, size_t num_runs)
{
    uint64_t twice = 0;
    for (size_t i = 0; i < num_runs; i++)
        paint_run(painted, runs[i].start, runs[i].end - 1, &twice);
    return twice != 0;
}

static uint64_t area_of(const Run *runs, size_t num_runs)
{
    uint64_t area = 0;
    for (size_t i = 0; i < num_runs; i++)
        area += runs[i].end - runs[i].start;
    return area;
}

/* Add the pixels that a run shares with each id of the map. A row holds two sums per id, to be
 * added up: sums of their own for where runs begin and end, so that neither waits for the other. */
INLINED void share_run(const MapIndex *map, uint32_t start, uint32_t end, uint32_t *shared)
{
    const uint32_t *starts = map->starts, *ids = map->ids;
    uint32_t first = run_at(map, start), last = run_at(map, end - 1);
    uint32_t first_end = starts[first + 1];
    shared[2 * ids[first]] += (end < first_end ? end : first_end) - start;
    uint32_t apart = 0u - (last != first); /* as a mask: a branch would be guessed wrong */
    shared[2 * ids[last] + 1] += (end - starts[last]) & apart;
    for (uint32_t run = first + 1; run < last; run++)
        shared[2 * ids[run]] += starts[run + 1] - starts[run];
}

INLINED void share_pixels(const MapIndex *map, const Run *runs, size_t num_runs, uint32_t *shared)
{
    for (size_t i = 0; i < num_runs; i++)
        share_run(map, runs[i].start, runs[i].end, shared);
}

/* Both at once: the words of the two bitmaps are at the same places. */
INLINED bool paint_and_share(const MapIndex *map, uint64_t *painted, const Run *runs,
                             size_t num_runs, uint32_t *shared)
{
    uint64_t twice = 0;
    for (size_t i = 0; i < num_runs; i++) {
        paint_run(painted, runs[i].start, runs[i].end - 1, &twice);
        share_run(map, runs[i].start, runs[i].end, shared);
    }
    return twice != 0;
}

/* ---- matching ---- */

typedef struct {
    const double *thresholds; /* ascending */
    int num_thresholds;
    const double *ranges; /* NUM_AREAS pairs of least and greatest size */
    uint32_t max_detections;
    bool crowds_ignore, void_ignores;
} Rules;

/* A ranked prediction and something true that it overlaps by at least the least threshold. */
typedef struct {
    uint32_t rank, truth;
    double iou;
} Candidate;

/* Where the records of an image go, one row per ranked prediction. */
typedef struct {
    double *scores;
    int32_t *prediction_ids;
    int64_t *areas;
    uint16_t *matched, *ignored; /* NUM_AREAS columns */
    double *best_ious;
    int32_t *partners;
    int32_t *boxes; /* x, y, width, height; NULL where they are not wanted */
} Records;

/* What is known of the true ids of an image. */
typedef struct {
    const int64_t *areas; /* by id; 0 is void */
    const double *sizes;  /* by entity, from 0 */
    uint32_t num_entities, num_crowds;
} Truth;

enum { TRUTH_IS_CROWD = 1 << NUM_AREAS, TRUTH_TAKES_PART = 2 << NUM_AREAS };

typedef struct {
    Block shared, flags, candidates, claims, order, spare, painted;
    Block table; /* pixels by true id and prediction, `columns` to a row; column 0 is void */
    size_t columns;
    uint32_t *shared_row;
    uint8_t *truth_flags; /* by id: bit a is set where area range a ignores it */
    Candidate *pairs;
    size_t num_pairs, room;
    bool contested;
} Matcher;

static void free_matcher(Matcher *matcher)
{
    free(matcher->shared.at);
    free(matcher->flags.at);
    free(matcher->candidates.at);
    free(matcher->claims.at);
    free(matcher->order.at);
    free(matcher->spare.at);
    free(matcher->painted.at);
    free(matcher->table.at);
}

/* Bit a is set where the size lies in area range a, both ends included. */
INLINED unsigned ranges_holding(const Rules *rules, double size)
{
    unsigned inside = 0;
    for (int a = 0; a < NUM_AREAS; a++)
        inside |= (unsigned)(size >= rules->ranges[2 * a] && size <= rules->ranges[2 * a + 1]) << a;
    return inside;
}

static bool prepare_truth(Matcher *matcher, const Truth *truth, const Rules *rules)
{
    const unsigned none = (1u << NUM_AREAS) - 1;
    size_t num_ids = (size_t)truth->num_entities + truth->num_crowds + 1;
    if (!reserve(&matcher->shared, 2 * num_ids, 4) || !reserve(&matcher->flags, num_ids, 1) ||
        !reserve(&matcher->claims, num_ids, 4))
        return false;
    matcher->shared_row = matcher->shared.at;
    matcher->truth_flags = matcher->flags.at;
    memset(matcher->shared_row, 0, num_ids * 8);
    memset(matcher->claims.at, 0, num_ids * 4);
    unsigned crowd = none | TRUTH_IS_CROWD | TRUTH_TAKES_PART;
    matcher->truth_flags[0] = (uint8_t)(rules->void_ignores ? crowd : none);
    for (uint32_t id = 1; id < num_ids; id++) {
        if (id > truth->num_entities)
            matcher->truth_flags[id] = (uint8_t)(rules->crowds_ignore ? crowd : none);
        else
            matcher->truth_flags[id] = (uint8_t)((none & ~ranges_holding(rules, truth->sizes[id - 1])) |
                                                 TRUTH_TAKES_PART);
    }
    matcher->num_pairs = 0;
    matcher->contested = false;
    return true;
}

static bool add_pair(Matcher *matcher, uint32_t rank, uint32_t truth, double iou)
{
    if (matcher->num_pairs == matcher->room) {
        size_t room = matcher->room ? 2 * matcher->room : 256;
        Candidate *pairs = realloc(matcher->candidates.at, room * sizeof(Candidate));
        if (!pairs)
            return false;
        matcher->candidates.at = matcher->pairs = pairs;
        matcher->room = room;
    }
    matcher->pairs[matcher->num_pairs++] = (Candidate){rank, truth, iou};
    return true;
}

/* Turn the shared pixels of one mask into IoUs, remember those that can match, clear the row. */
INLINED bool weigh(Matcher *matcher, const Truth *truth, const Rules *rules, uint32_t rank,
                   uint64_t area, double *best_iou)
{
    size_t num_ids = (size_t)truth->num_entities + truth->num_crowds + 1;
    uint32_t *claims = matcher->claims.at;
    int options = 0;
    double best = 0;
    for (uint32_t id = 0; id < num_ids; id++) {
        uint64_t shared = (uint64_t)matcher->shared_row[2 * id] + matcher->shared_row[2 * id + 1];
        matcher->shared_row[2 * id] = matcher->shared_row[2 * id + 1] = 0;
        unsigned flags = matcher->truth_flags[id];
        if (shared == 0 || !(flags & TRUTH_TAKES_PART))
            continue;
        bool crowd = (flags & TRUTH_IS_CROWD) != 0;
        uint64_t whole = crowd ? area : area + (uint64_t)truth->areas[id] - shared;
        double iou = (double)shared / (double)whole; /* one quotient, as pycocotools */
        if (!crowd && iou > best)
            best = iou;
        if (iou < rules->thresholds[0])
            continue;
        if (!add_pair(matcher, rank, id, iou))
            return false;
        options++;
        claims[id] += !crowd;
        matcher->contested |= options > 1 || claims[id] > 1;
    }
    *best_iou = best;
    return true;
}

/* Nobody competes: a prediction is matched at t where its IoU is at least t. */
static void match_freely(const Matcher *matcher, const Rules *rules, Records *records)
{
    for (size_t i = 0; i < matcher->num_pairs; i++) {
        const Candidate *pair = matcher->pairs + i;
        unsigned flags = matcher->truth_flags[pair->truth], bits = 0;
        for (int t = 0; t < rules->num_thresholds; t++)
            bits |= (unsigned)(rules->thresholds[t] <= pair->iou) << t;
        for (int a = 0; a < NUM_AREAS; a++) {
            records->matched[NUM_AREAS * pair->rank + a] = (uint16_t)bits;
            if (flags >> a & 1)
                records->ignored[NUM_AREAS * pair->rank + a] = (uint16_t)bits;
        }
        records->partners[pair->rank] = (int32_t)pair->truth;
    }
}

/* COCO's choice for one prediction among its pairs: true entities that count before those that
 * are ignored, then the highest IoU, then the later one. */
static const Candidate *choose(const Matcher *matcher, const Candidate *from, const Candidate *to,
                               const uint8_t *taken, int area, double threshold)
{
    for (unsigned ignored = 0; ignored < 2; ignored++) {
        const Candidate *best = NULL;
        double least = threshold;
        for (const Candidate *pair = from; pair < to; pair++) {
            unsigned flags = matcher->truth_flags[pair->truth];
            if ((flags >> area & 1) != ignored || pair->iou < least)
                continue;
            if (taken[pair->truth] && !(flags & TRUTH_IS_CROWD))
                continue;
            best = pair;
            least = pair->iou;
        }
        if (best)
            return best;
    }
    return NULL;
}

/* COCO's greedy assignment at one threshold and area range. */
static void match_greedily(const Matcher *matcher, uint8_t *taken, Records *records, int area,
                           int step, double threshold)
{
    const Candidate *end = matcher->pairs + matcher->num_pairs, *to;
    for (const Candidate *from = matcher->pairs; from < end; from = to) {
        for (to = from; to < end && to->rank == from->rank; to++)
            ;
        const Candidate *best = choose(matcher, from, to, taken, area, threshold);
        if (!best)
            continue;
        taken[best->truth] = 1;
        records->matched[NUM_AREAS * best->rank + area] |= (uint16_t)(1u << step);
        if (matcher->truth_flags[best->truth] >> area & 1)
            records->ignored[NUM_AREAS * best->rank + area] |= (uint16_t)(1u << step);
        if (area == 0 && step == 0)
            records->partners[best->rank] = (int32_t)best->truth;
    }
}

static bool match_contested(Matcher *matcher, const Truth *truth, const Rules *rules,
                            Records *records)
{
    size_t num_ids = (size_t)truth->num_entities + truth->num_crowds + 1;
    if (!reserve(&matcher->spare, num_ids, 1))
        return false;
    for (int area = 0; area < NUM_AREAS; area++)
        for (int step = 0; step < rules->num_thresholds; step++) {
            memset(matcher->spare.at, 0, num_ids);
            match_greedily(matcher, matcher->spare.at, records, area, step,
                           rules->thresholds[step]);
        }
    return true;
}

/* An unmatched prediction outside an area range is ignored there. */
static void ignore_outside(const Rules *rules, Records *records, size_t count)
{
    const unsigned all = (1u << rules->num_thresholds) - 1;
    for (size_t rank = 0; rank < count; rank++) {
        unsigned inside = ranges_holding(rules, (double)records->areas[rank]);
        for (int a = 0; a < NUM_AREAS; a++)
            if (!(inside >> a & 1))
                records->ignored[NUM_AREAS * rank + a] |=
                    (uint16_t)(all & ~records->matched[NUM_AREAS * rank + a]);
    }
}

static bool finish_matching(Matcher *matcher, const Truth *truth, const Rules *rules,
                            Records *records, size_t count)
{
    memset(records->matched, 0, count * NUM_AREAS * 2);
    memset(records->ignored, 0, count * NUM_AREAS * 2);
    for (size_t rank = 0; rank < count; rank++)
        records->partners[rank] = -1;
    if (!matcher->contested)
        match_freely(matcher, rules, records);
    else if (!match_contested(matcher, truth, rules, records))
        return false;
    ignore_outside(rules, records, count);
    return true;
}

/* Records of the image whose first row is `row`. */
static Records records_at(const Records *all, size_t row)
{
    return (Records){all->scores + row,
                     all->prediction_ids + row,
                     all->areas + row,
                     all->matched + NUM_AREAS * row,
                     all->ignored + NUM_AREAS * row,
                     all->best_ious + row,
                     all->partners + row,
                     all->boxes ? all->boxes + 4 * row : NULL};
}

/* ---- ranking ---- */

/* Sort `order`, positions into `scores`, by falling score; ties keep their order. */
static void insert_sort(uint32_t *order, size_t count, const double *scores)
{
    for (size_t i = 1; i < count; i++) {
        uint32_t moved = order[i];
        size_t k = i;
        for (; k > 0 && scores[order[k - 1]] < scores[moved]; k--)
            order[k] = order[k - 1];
        order[k] = moved;
    }
}

static void merge_halves(const uint32_t *from, uint32_t *to, size_t left, size_t middle,
                         size_t right, const double *scores)
{
    size_t a = left, b = middle;
    for (size_t i = left; i < right; i++) {
        bool second = a == middle || (b < right && scores[from[a]] < scores[from[b]]);
        to[i] = second ? from[b++] : from[a++];
    }
}

/* Rank the masks of one image; the result is in `matcher->order`. */
static uint32_t *rank_masks(Matcher *matcher, const double *scores, size_t count)
{
    const size_t first = 32;
    if (!reserve(&matcher->order, 2 * count, 4))
        return NULL;
    uint32_t *order = matcher->order.at, *spare = order + count;
    for (size_t i = 0; i < count; i++)
        order[i] = (uint32_t)i;
    for (size_t i = 0; i < count; i += first)
        insert_sort(order + i, count - i < first ? count - i : first, scores);
    for (size_t width = first; width < count; width *= 2) {
        for (size_t i = 0; i < count; i += 2 * width) {
            size_t middle = i + width < count ? i + width : count;
            size_t right = i + 2 * width < count ? i + 2 * width : count;
            merge_halves(order, spare, i, middle, right, scores);
        }
        uint32_t *other = order;
        order = spare;
        spare = other;
    }
    return order;
}

/* ---- evaluation of results given as RLE ---- */

typedef struct {
    const uint8_t *text, *extra; /* extra: texts made from polygons */
    size_t text_size, extra_size;
    const int64_t *offsets; /* of each mask's text; < 0: -1 - offset into extra */
    const uint32_t *lengths;
    const uint8_t *kinds;
    const double *scores;
} Masks;

typedef struct {
    const uint8_t *packed;
    size_t packed_size;
    const ImageEntry *entries;
    const int64_t *areas; /* by id, image after image */
    const double *sizes;  /* by entity, image after image */
    size_t num_areas, num_sizes;
} TruthTables;

typedef struct {
    MapIndex map;
    MaskReader reader;
    Matcher matcher;
    int64_t failed_mask;
} Evaluator;

static void free_evaluator(Evaluator *evaluator)
{
    free_index(&evaluator->map);
    free_reader(&evaluator->reader);
    free_matcher(&evaluator->matcher);
}

static const uint8_t *mask_text(const Masks *masks, size_t mask)
{
    int64_t offset = masks->offsets[mask];
    const uint8_t *text = offset < 0 ? masks->extra : masks->text;
    size_t size = offset < 0 ? masks->extra_size : masks->text_size;
    uint64_t at = offset < 0 ? (uint64_t)(-1 - offset) : (uint64_t)offset;
    if (at > size || masks->lengths[mask] > size - at)
        return NULL;
    return text + at;
}

/* Move what a mask shares with each true id to its column of the table. */
static void put_column(Matcher *matcher, size_t num_ids, size_t column)
{
    uint32_t *table = (uint32_t *)matcher->table.at + column;
    for (size_t id = 0; id < num_ids; id++)
        table[id * matcher->columns] = matcher->shared_row[2 * id] + matcher->shared_row[2 * id + 1];
}

/* The box of a mask whose runs ascend by columns of `height` pixels. */
static void box_mask(const Run *runs, size_t num_runs, uint32_t height, int32_t *box)
{
    double share = 1.0 / height;
    uint32_t top = UINT32_MAX, bottom = 0, left = 0, right = 0;
    for (size_t i = 0; i < num_runs; i++) {
        uint32_t first = runs[i].start, last = runs[i].end - 1;
        int64_t column = (int64_t)(first * share), row = first - column * height;
        column += (row >= height) - (row < 0); /* the quotient may be off by one */
        row = first - column * height;
        bool over = row + (last - first) >= height; /* into the next column: of full height */
        uint32_t from = over ? 0 : (uint32_t)row;
        uint32_t upto = over ? height : (uint32_t)row + (last - first) + 1;
        top = from < top ? from : top;
        bottom = upto > bottom ? upto : bottom;
        left = i == 0 ? (uint32_t)column : left;
        right = i + 1 == num_runs ? last / height + 1 : right;
    }
    box[0] = (int32_t)left;
    box[1] = num_runs ? (int32_t)top : 0;
    box[2] = (int32_t)(right - left);
    box[3] = num_runs ? (int32_t)(bottom - top) : 0;
}

/* ---- contingency tables that are kept ---- */

enum { MAX_CELLS = 1 << 24 }; /* of one image; whoever has more is matched elsewhere */

/* What is told of each image, and where its columns begin. */
typedef struct {
    const int64_t *mask_offsets, *record_offsets, *size_offsets;
    uint8_t *left; /* whether the image needs a second look */
    int64_t *num_empty, *num_cells;
    int32_t *cells; /* `room` true ids, `room` predicted ids, `room` pixels */
    size_t room, used;
} ByImage;

static bool table_fits(size_t num_ids, size_t num_predicted)
{
    return num_ids <= MAX_CELLS / (num_predicted + 1);
}

/* Make a table of zeros, `num_predicted + 1` columns by `num_ids` rows. */
static bool open_table(Matcher *matcher, size_t num_ids, size_t num_predicted)
{
    size_t size = num_ids * (num_predicted + 1);
    if (!reserve(&matcher->table, size, 4))
        return false;
    memset(matcher->table.at, 0, size * 4);
    matcher->columns = num_predicted + 1;
    return true;
}

static void keep_cell(ByImage *by_image, uint32_t truth, uint32_t prediction, uint32_t pixels)
{
    int32_t *cell = by_image->cells + by_image->used++;
    cell[0] = (int32_t)truth;
    cell[by_image->room] = (int32_t)prediction;
    cell[2 * by_image->room] = (int32_t)pixels;
}

/* Keep one row: what nobody claims of a true id, then what each prediction does. */
static void keep_row(ByImage *by_image, const uint32_t *row, size_t columns, uint32_t id,
                     int64_t area)
{
    int64_t left = area;
    for (size_t i = 1; i < columns; i++)
        left -= row[i];
    if (id > 0 && left > 0)
        keep_cell(by_image, id, 0, (uint32_t)left);
    for (size_t i = 1; i < columns; i++)
        if (row[i])
            keep_cell(by_image, id, (uint32_t)i, row[i]);
}

/* Keep the table of an image; false where there is no room. Images left over have none. */
static bool keep_cells(ByImage *by_image, const Matcher *matcher, const TruthTables *tables,
                       int64_t image)
{
    by_image->num_cells[image] = 0;
    if (by_image->left[image] || by_image->room == 0)
        return true;
    const ImageEntry *entry = tables->entries + image;
    const uint32_t *table = matcher->table.at;
    size_t num_ids = (size_t)entry->num_entities + entry->num_crowds + 1, needed = 0;
    size_t columns = matcher->columns, before = by_image->used;
    for (size_t i = 0; i < num_ids * columns; i++)
        needed += table[i] != 0;
    if (needed + num_ids > by_image->room - before)
        return false;
    for (size_t id = 0; id < num_ids; id++)
        keep_row(by_image, table + id * columns, columns, (uint32_t)id,
                 tables->areas[entry->first_id + (int64_t)id]);
    by_image->num_cells[image] = (int64_t)(by_image->used - before);
    return true;
}

/* ---- evaluation of masks ---- */

/* Read, paint and weigh one mask; with a table, also tabulate it as prediction `number`. Masks
 * beyond the ranked ones are not weighed. */
INLINED int take_mask(Evaluator *evaluator, const Masks *masks, size_t mask, size_t number,
                      const Truth *truth, const Rules *rules, Records *records, size_t rank,
                      uint32_t height, bool *overlaps, bool *is_empty)
{
    Mask read;
    const uint8_t *text = mask_text(masks, mask);
    if (!text)
        return RLE_UNFINISHED;
    int status = read_mask(&evaluator->reader, text, masks->lengths[mask], masks->kinds[mask],
                           evaluator->map.pixels, &read);
    if (status)
        return status;
    Matcher *matcher = &evaluator->matcher;
    size_t num_ids = (size_t)truth->num_entities + truth->num_crowds + 1;
    bool ranked = rank < rules->max_detections;
    *is_empty = read.num_runs == 0;
    if (!ranked && !matcher->columns) {
        *overlaps |= paint(matcher->painted.at, read.runs, read.num_runs);
        return OK;
    }
    *overlaps |= paint_and_share(&evaluator->map, matcher->painted.at, read.runs, read.num_runs,
                                 matcher->shared_row);
    if (matcher->columns)
        put_column(matcher, num_ids, number);
    if (!ranked) {
        memset(matcher->shared_row, 0, num_ids * 8);
        return OK;
    }
    records->areas[rank] = (int64_t)read.area;
    if (records->boxes)
        box_mask(read.runs, read.num_runs, height, records->boxes + 4 * rank);
    return weigh(matcher, truth, rules, (uint32_t)rank, read.area, records->best_ious + rank)
               ? OK
               : NO_MEMORY;
}

/* Match masks `first … first + count` to one image. */
INLINED int match_image(Evaluator *evaluator, const Masks *masks, size_t first, size_t count,
                        const Truth *truth, const Rules *rules, Records *records, uint32_t height,
                        bool *overlaps, int64_t *num_empty)
{
    Matcher *matcher = &evaluator->matcher;
    size_t words = num_words(evaluator->map.pixels);
    uint32_t *order = rank_masks(matcher, masks->scores + first, count);
    if (!order || !reserve(&matcher->painted, words, 8) || !prepare_truth(matcher, truth, rules))
        return NO_MEMORY;
    memset(matcher->painted.at, 0, words * 8);
    for (size_t rank = 0; rank < count; rank++) {
        size_t mask = first + order[rank];
        bool is_empty = false;
        int status = take_mask(evaluator, masks, mask, order[rank] + 1, truth, rules, records, rank,
                               height, overlaps, &is_empty);
        if (status) {
            evaluator->failed_mask = (int64_t)mask;
            return status;
        }
        *num_empty += is_empty;
        if (rank < rules->max_detections) {
            records->scores[rank] = masks->scores[mask];
            records->prediction_ids[rank] = (int32_t)order[rank] + 1;
        }
    }
    size_t ranked = count < rules->max_detections ? count : rules->max_detections;
    return finish_matching(matcher, truth, rules, records, ranked) ? OK : NO_MEMORY;
}

/* The truth of an image, or false where the tables do not hold it. */
static bool truth_of(const TruthTables *tables, size_t image, int64_t first_size, Truth *truth)
{
    const ImageEntry *entry = tables->entries + image;
    uint64_t num_ids = (uint64_t)entry->num_entities + entry->num_crowds + 1;
    if (entry->first_id < 0 || (uint64_t)entry->first_id + num_ids > tables->num_areas ||
        first_size < 0 || (uint64_t)first_size + entry->num_entities > tables->num_sizes)
        return false;
    *truth = (Truth){tables->areas + entry->first_id, tables->sizes + first_size,
                     entry->num_entities, entry->num_crowds};
    return true;
}

/* Match one image and keep its table if tables are kept. `*left` is set where masks overlap, or
 * where the table would be too large. */
INLINED int match_masks_of(Evaluator *evaluator, const Masks *masks, const TruthTables *tables,
                           const Rules *rules, const ByImage *by_image, const Records *all,
                           int64_t image, bool *left)
{
    Truth truth;
    const ImageEntry *entry = tables->entries + image;
    size_t first = (size_t)by_image->mask_offsets[image];
    size_t count = (size_t)by_image->mask_offsets[image + 1] - first;
    Records records = records_at(all, (size_t)by_image->record_offsets[image]);
    if (!truth_of(tables, (size_t)image, by_image->size_offsets[image], &truth))
        return MAP_DAMAGED;
    int status = unpack_map(&evaluator->map, tables->packed, tables->packed_size, entry);
    if (status)
        return status;
    evaluator->matcher.columns = 0;
    if (by_image->room) {
        size_t num_ids = (size_t)truth.num_entities + truth.num_crowds + 1;
        *left = !table_fits(num_ids, count);
        if (*left)
            return OK;
        if (!open_table(&evaluator->matcher, num_ids, count))
            return NO_MEMORY;
    }
    return match_image(evaluator, masks, first, count, &truth, rules, &records, entry->height, left,
                       by_image->num_empty + image);
}

/* Match images from `begin` on until the cells are full. Returns a status;
 * `evaluator->failed_mask` and `*reached` say where. */
INLINED int match_images(Evaluator *evaluator, const Masks *masks, const TruthTables *tables,
                         const Rules *rules, ByImage *by_image, const Records *all, int64_t begin,
                         int64_t end, int64_t *reached)
{
    for (int64_t image = begin; image < end; image++) {
        bool left = false;
        *reached = image;
        by_image->num_empty[image] = 0;
        int status = match_masks_of(evaluator, masks, tables, rules, by_image, all, image, &left);
        if (status)
            return status;
        by_image->left[image] = left;
        if (!keep_cells(by_image, &evaluator->matcher, tables, image))
            return OK;
    }
    *reached = end;
    return OK;
}

static int match_images_plain(Evaluator *evaluator, const Masks *masks, const TruthTables *tables,
                              const Rules *rules, ByImage *by_image, const Records *all,
                              int64_t begin, int64_t end, int64_t *reached)
{
    return match_images(evaluator, masks, tables, rules, by_image, all, begin, end, reached);
}

#ifdef HAS_POPCNT_VARIANT
WITH_POPCNT static int match_images_popcnt(Evaluator *evaluator, const Masks *masks,
                                           const TruthTables *tables, const Rules *rules,
                                           ByImage *by_image, const Records *all, int64_t begin,
                                           int64_t end, int64_t *reached)
{
    return match_images(evaluator, masks, tables, rules, by_image, all, begin, end, reached);
}
#endif

static int match_images_here(Evaluator *evaluator, const Masks *masks, const TruthTables *tables,
                             const Rules *rules, ByImage *by_image, const Records *all,
                             int64_t begin, int64_t end, int64_t *reached)
{
#ifdef HAS_POPCNT_VARIANT
    if (has_popcnt())
        return match_images_popcnt(evaluator, masks, tables, rules, by_image, all, begin, end,
                                   reached);
#endif
    return match_images_plain(evaluator, masks, tables, rules, by_image, all, begin, end, reached);
}

/* ---- evaluation of maps ---- */

/* Order the runs of a map by id, ids 1…num_ids alone; `ends` gets the end of each id's share. */
static bool runs_by_id(MaskReader *reader, Block *ends_block, const int32_t *starts,
                       const int32_t *ids, size_t num_runs, uint64_t pixels, uint32_t num_ids)
{
    if (!reserve(&reader->runs, num_runs + 1, sizeof(Run)) ||
        !reserve(ends_block, (size_t)num_ids + 2, sizeof(size_t)))
        return false;
    size_t *ends = ends_block->at;
    Run *runs = reader->runs.at;
    memset(ends, 0, ((size_t)num_ids + 2) * sizeof(size_t));
    for (size_t i = 0; i < num_runs; i++)
        if (ids[i] > 0 && (uint32_t)ids[i] <= num_ids)
            ends[ids[i] + 1]++;
    for (size_t id = 1; id <= num_ids; id++)
        ends[id + 1] += ends[id];
    for (size_t i = 0; i < num_runs; i++)
        if (ids[i] > 0 && (uint32_t)ids[i] <= num_ids) {
            uint32_t end = i + 1 < num_runs ? (uint32_t)starts[i + 1] : (uint32_t)pixels;
            runs[ends[ids[i]]++] = (Run){(uint32_t)starts[i], end};
        }
    return true; /* ends[id] is now behind the runs of id, ends[0] is 0 */
}

/* Whether runs ascend from pixel 0 and stay inside the image, with ids in 0…num_ids. */
static bool runs_are_sound(const int32_t *starts, const int32_t *ids, size_t num_runs,
                           uint64_t pixels, uint32_t num_ids)
{
    if (pixels == 0 || pixels > MAX_PIXELS || num_runs == 0 || starts[0] != 0)
        return false;
    bool sound = true;
    for (size_t i = 0; i < num_runs; i++) {
        sound &= i == 0 || starts[i] > starts[i - 1];
        sound &= ids[i] >= 0 && (uint32_t)ids[i] <= num_ids;
    }
    return sound && (uint64_t)starts[num_runs - 1] < pixels;
}

/* Match the entities of a map, whose runs lie by id in the reader, to the truth in the index. */
INLINED int match_sorted_runs(Evaluator *evaluator, const size_t *ends, const double *scores,
                              size_t count, const Truth *truth, const Rules *rules,
                              Records *records, int64_t *num_empty)
{
    Matcher *matcher = &evaluator->matcher;
    const Run *runs = evaluator->reader.runs.at;
    uint32_t *order = rank_masks(matcher, scores, count);
    if (!order || !prepare_truth(matcher, truth, rules))
        return NO_MEMORY;
    *num_empty = 0;
    for (size_t id = 1; id <= count; id++)
        *num_empty += ends[id] == ends[id - 1];
    size_t ranked = count < rules->max_detections ? count : rules->max_detections;
    for (size_t rank = 0; rank < ranked; rank++) {
        size_t id = (size_t)order[rank] + 1;
        const Run *own = runs + ends[id - 1];
        size_t num_own = ends[id] - ends[id - 1];
        uint64_t area = area_of(own, num_own);
        records->scores[rank] = scores[id - 1];
        records->prediction_ids[rank] = (int32_t)id;
        records->areas[rank] = (int64_t)area;
        share_pixels(&evaluator->map, own, num_own, matcher->shared_row);
        if (!weigh(matcher, truth, rules, (uint32_t)rank, area, records->best_ious + rank))
            return NO_MEMORY;
    }
    return finish_matching(matcher, truth, rules, records, ranked) ? OK : NO_MEMORY;
}

static int match_sorted_plain(Evaluator *evaluator, const size_t *ends, const double *scores,
                              size_t count, const Truth *truth, const Rules *rules,
                              Records *records, int64_t *num_empty)
{
    return match_sorted_runs(evaluator, ends, scores, count, truth, rules, records, num_empty);
}

#ifdef HAS_POPCNT_VARIANT
WITH_POPCNT static int match_sorted_popcnt(Evaluator *evaluator, const size_t *ends,
                                           const double *scores, size_t count, const Truth *truth,
                                           const Rules *rules, Records *records,
                                           int64_t *num_empty)
{
    return match_sorted_runs(evaluator, ends, scores, count, truth, rules, records, num_empty);
}
#endif

static int match_sorted_here(Evaluator *evaluator, const size_t *ends, const double *scores,
                             size_t count, const Truth *truth, const Rules *rules,
                             Records *records, int64_t *num_empty)
{
#ifdef HAS_POPCNT_VARIANT
    if (has_popcnt())
        return match_sorted_popcnt(evaluator, ends, scores, count, truth, rules, records,
                                   num_empty);
#endif
    return match_sorted_plain(evaluator, ends, scores, count, truth, rules, records, num_empty);
}

/* ---- inflate ---- */

/* Bits of a deflate stream, the next one lowest. Behind the end come zeros, and are counted. */
typedef struct {
    const uint8_t *at, *end;
    uint64_t held;
    unsigned count, beyond; /* bits held; bytes from behind the end */
} BitReader;

/* Hold at least 56 bits. Bits above `count` may be there already: they are the right ones. */
INLINED void refill(BitReader *reader)
{
    if (reader->end - reader->at >= 8) {
        reader->held |= load64(reader->at) << reader->count;
        reader->at += (63 - reader->count) >> 3;
        reader->count |= 56;
        return;
    }
    for (; reader->count < 56; reader->count += 8) {
        if (reader->at < reader->end)
            reader->held |= (uint64_t)*reader->at++ << reader->count;
        else
            reader->beyond++;
    }
}

INLINED unsigned take_bits(BitReader *reader, unsigned count)
{
    unsigned bits = (unsigned)(reader->held & (((uint64_t)1 << count) - 1));
    reader->held >>= count;
    reader->count -= count;
    return bits;
}

/* Give back the whole bytes that are held; false where some of them never were there. */
static bool align_to_byte(BitReader *reader)
{
    take_bits(reader, reader->count & 7);
    unsigned bytes = reader->count >> 3;
    if (bytes < reader->beyond)
        return false;
    reader->at -= bytes - reader->beyond;
    reader->held = 0;
    reader->count = reader->beyond = 0;
    return true;
}

/* What a code stands for: `value << 16 | flags | extra bits << 8 | bits of the code`. A code longer
 * than the root of its table leads to a second table, `value` behind the first. */
enum {
    CODE_LITERAL = 0x2000,
    CODE_ODD = 0x4000, /* not a value: a second table, the end of the block, or no code at all */
    CODE_SECOND = 0x8000,
    END_OF_BLOCK = 256,
    LENGTH_ROOT = 11,
    DISTANCE_ROOT = 8,
    MAX_CODE = 15,
    MAX_MATCH = 258,
    SLACK = MAX_MATCH + 64, /* writable bytes behind the output, so that copies need not look */
};

typedef struct {
    uint32_t lengths[(1 << LENGTH_ROOT) + 288 * 16];
    uint32_t distances[(1 << DISTANCE_ROOT) + 32 * 128];
    uint8_t sizes[288 + 32]; /* bits of each code, while a header is read */
} Codes;

static uint32_t length_meaning(unsigned symbol)
{
    static const uint16_t least[29] = {3,  4,  5,  6,  7,  8,  9,  10, 11,  13,  15,  17,  19,  23, 27,
                                       31, 35, 43, 51, 59, 67, 83, 99, 115, 131, 163, 195, 227, 258};
    if (symbol < 256)
        return symbol << 16 | CODE_LITERAL;
    if (symbol == END_OF_BLOCK)
        return END_OF_BLOCK << 16 | CODE_ODD;
    if (symbol > 285)
        return CODE_ODD;
    unsigned place = symbol - 257;
    unsigned extra = place < 8 || place == 28 ? 0 : (place - 4) / 4;
    return (uint32_t)least[place] << 16 | extra << 8;
}

static uint32_t distance_meaning(unsigned symbol)
{
    if (symbol > 29)
        return CODE_ODD;
    unsigned extra = symbol < 4 ? 0 : symbol / 2 - 1;
    unsigned least = symbol < 4 ? symbol + 1 : ((2 + (symbol & 1)) << extra) + 1;
    return (uint32_t)least << 16 | extra << 8;
}

static uint32_t plain_meaning(unsigned symbol)
{
    return symbol << 16;
}

static unsigned reversed(unsigned code, unsigned size)
{
    unsigned back = 0;
    for (unsigned i = 0; i < size; i++)
        back |= (code >> i & 1) << (size - 1 - i);
    return back;
}

/* Count codes by size and find the first code of each; false where the sizes are no prefix code.
 * A code may be incomplete where nothing, or one symbol of one bit, has a code (RFC 1951). */
static bool first_codes(const uint8_t *sizes, unsigned num_symbols, unsigned *first,
                        unsigned *longest)
{
    unsigned counts[MAX_CODE + 1] = {0};
    int64_t left = 1;
    for (unsigned symbol = 0; symbol < num_symbols; symbol++)
        counts[sizes[symbol]]++;
    counts[0] = first[0] = *longest = 0;
    for (unsigned size = 1; size <= MAX_CODE; size++) {
        first[size] = (first[size - 1] + counts[size - 1]) << 1;
        left = 2 * left - counts[size];
        if (left < 0)
            return false;
        *longest = counts[size] ? size : *longest;
    }
    return left == 0 || *longest <= 1;
}

static void fill_every(uint32_t *table, size_t from, size_t step, size_t size, uint32_t entry)
{
    for (size_t i = from; i < size; i += step)
        table[i] = entry;
}

static bool build_table(uint32_t *table, size_t room, unsigned root, const uint8_t *sizes,
                        unsigned num_symbols, uint32_t (*meaning)(unsigned))
{
    unsigned next[MAX_CODE + 1], longest;
    if (!first_codes(sizes, num_symbols, next, &longest))
        return false;
    size_t used = (size_t)1 << root, second = longest > root ? (size_t)1 << (longest - root) : 0;
    fill_every(table, 0, 1, used, CODE_ODD);
    for (unsigned symbol = 0; symbol < num_symbols; symbol++) {
        unsigned size = sizes[symbol];
        if (size == 0)
            continue;
        unsigned code = reversed(next[size]++, size);
        if (size <= root) {
            fill_every(table, code, (size_t)1 << size, (size_t)1 << root, meaning(symbol) | size);
            continue;
        }
        uint32_t *lead = table + (code & ((1u << root) - 1));
        if (!(*lead & CODE_SECOND)) {
            if (used + second > room)
                return false;
            *lead = (uint32_t)used << 16 | CODE_ODD | CODE_SECOND | (longest - root) << 8 | root;
            fill_every(table + used, 0, 1, second, CODE_ODD);
            used += second;
        }
        fill_every(table + (*lead >> 16), code >> root, (size_t)1 << (size - root), second,
                   meaning(symbol) | (size - root));
    }
    return true;
}

static bool build_codes(Codes *codes, unsigned num_lengths, unsigned num_distances)
{
    return build_table(codes->lengths, sizeof codes->lengths / 4, LENGTH_ROOT, codes->sizes,
                       num_lengths, length_meaning) &&
           build_table(codes->distances, sizeof codes->distances / 4, DISTANCE_ROOT,
                       codes->sizes + num_lengths, num_distances, distance_meaning);
}

static bool fixed_codes(Codes *codes)
{
    memset(codes->sizes, 8, 144);
    memset(codes->sizes + 144, 9, 112);
    memset(codes->sizes + 256, 7, 24);
    memset(codes->sizes + 280, 8, 8);
    memset(codes->sizes + 288, 5, 32);
    return build_codes(codes, 288, 32);
}

/* Read the sizes of `total` codes, themselves coded; the table of distances lends its room. */
static bool read_sizes(BitReader *reader, Codes *codes, unsigned total)
{
    for (unsigned i = 0; i < total;) {
        refill(reader);
        uint32_t entry = codes->distances[reader->held & 127];
        unsigned value = entry >> 16, repeat = 1;
        if (entry & CODE_ODD)
            return false;
        take_bits(reader, entry & 255);
        if (value == 16 && i == 0)
            return false;
        if (value == 16)
            repeat = 3 + take_bits(reader, 2);
        else if (value > 16)
            repeat = value == 17 ? 3 + take_bits(reader, 3) : 11 + take_bits(reader, 7);
        if (repeat > total - i)
            return false;
        memset(codes->sizes + i, value == 16 ? codes->sizes[i - 1] : value > 16 ? 0 : value, repeat);
        i += repeat;
    }
    return codes->sizes[END_OF_BLOCK] != 0;
}

static bool read_codes(BitReader *reader, Codes *codes)
{
    static const uint8_t order[19] = {16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15};
    uint8_t sizes[19] = {0};
    refill(reader);
    unsigned num_lengths = 257 + take_bits(reader, 5), num_distances = 1 + take_bits(reader, 5);
    unsigned num_sizes = 4 + take_bits(reader, 4);
    if (num_lengths > 286 || num_distances > 30)
        return false;
    for (unsigned i = 0; i < num_sizes; i++) {
        refill(reader);
        sizes[order[i]] = (uint8_t)take_bits(reader, 3);
    }
    return build_table(codes->distances, 128, 7, sizes, 19, plain_meaning) &&
           read_sizes(reader, codes, num_lengths + num_distances) &&
           build_codes(codes, num_lengths, num_distances);
}

/* Repeat what was written `distance` bytes ago; writes up to 15 bytes too many. */
INLINED void repeat_bytes(uint8_t *out, size_t distance, size_t length)
{
    const uint8_t *from = out - distance;
    uint8_t *end = out + length;
    if (distance >= 16) {
        for (; out < end; out += 16, from += 16)
            memcpy(out, from, 16);
    } else if (distance == 1) {
        memset(out, *from, length <= 16 ? 16 : length);
    } else {
        while (out < end)
            *out++ = *from++;
    }
}

/* Look up a code; `*entry` is then its meaning. */
INLINED void read_code(BitReader *reader, const uint32_t *table, unsigned root, uint32_t *entry)
{
    *entry = table[reader->held & ((1u << root) - 1)];
    if (*entry & CODE_SECOND) {
        take_bits(reader, root);
        *entry = table[(*entry >> 16) + (reader->held & ((1u << (*entry >> 8 & 31)) - 1))];
    }
    take_bits(reader, *entry & 255);
}

INLINED unsigned value_of(BitReader *reader, uint32_t entry)
{
    return (entry >> 16) + take_bits(reader, entry >> 8 & 31);
}

/* Unpack the codes of one block; `*place` moves on to at most `end`. */
INLINED bool inflate_block(BitReader *given, const Codes *codes, const uint8_t *start,
                           uint8_t **place, const uint8_t *end)
{
    BitReader reader = *given;
    uint8_t *out = *place;
    while (out <= end) {
        uint32_t entry;
        refill(&reader);
        read_code(&reader, codes->lengths, LENGTH_ROOT, &entry);
        if (entry & CODE_LITERAL) {
            *out++ = (uint8_t)(entry >> 16);
            read_code(&reader, codes->lengths, LENGTH_ROOT, &entry);
            if (entry & CODE_LITERAL) {
                *out++ = (uint8_t)(entry >> 16);
                continue;
            }
        }
        if (entry & CODE_ODD) {
            *place = out;
            *given = reader;
            return entry >> 16 == END_OF_BLOCK && out <= end;
        }
        unsigned length = value_of(&reader, entry);
        refill(&reader);
        read_code(&reader, codes->distances, DISTANCE_ROOT, &entry);
        if (entry & CODE_ODD)
            return false;
        unsigned distance = value_of(&reader, entry);
        if (distance > (size_t)(out - start))
            return false;
        repeat_bytes(out, distance, length);
        out += length;
    }
    return false;
}

static bool copy_stored(BitReader *reader, uint8_t **place, const uint8_t *end)
{
    if (!align_to_byte(reader) || reader->end - reader->at < 4)
        return false;
    unsigned length = load16(reader->at), check = load16(reader->at + 2);
    reader->at += 4;
    if (length != (check ^ 0xffff) || length > (size_t)(reader->end - reader->at) ||
        length > (size_t)(end - *place))
        return false;
    memcpy(*place, reader->at, length);
    reader->at += length;
    *place += length;
    return true;
}

/* The sum that ends a zlib stream. */
static uint32_t adler32(const uint8_t *data, size_t size)
{
    uint32_t low = 1, high = 0;
    while (size) {
        size_t block = size < 5552 ? size : 5552, i = 0; /* so that sums stay below 2**32 */
#if defined(__SSE2__)
        const __m128i none = _mm_setzero_si128();
        const __m128i left = _mm_set_epi16(9, 10, 11, 12, 13, 14, 15, 16);
        const __m128i right = _mm_set_epi16(1, 2, 3, 4, 5, 6, 7, 8);
        __m128i sums = none, before = none, weighted = none;
        for (; i + 16 <= block; i += 16) {
            __m128i bytes = _mm_loadu_si128((const __m128i *)(data + i));
            before = _mm_add_epi32(before, sums);
            sums = _mm_add_epi32(sums, _mm_sad_epu8(bytes, none));
            weighted = _mm_add_epi32(weighted, _mm_madd_epi16(_mm_unpacklo_epi8(bytes, none), left));
            weighted = _mm_add_epi32(weighted, _mm_madd_epi16(_mm_unpackhi_epi8(bytes, none), right));
        }
        uint32_t parts[3][4];
        _mm_storeu_si128((__m128i *)parts[0], sums);
        _mm_storeu_si128((__m128i *)parts[1], before);
        _mm_storeu_si128((__m128i *)parts[2], weighted);
        high += (uint32_t)i * low + 16 * (parts[1][0] + parts[1][2]);
        for (int k = 0; k < 4; k++)
            high += parts[2][k];
        low += parts[0][0] + parts[0][2];
#endif
        for (; i < block; i++)
            high += low += data[i];
        low %= 65521;
        high %= 65521;
        data += block;
        size -= block;
    }
    return high << 16 | low;
}

INLINED uint32_t load_big32(const uint8_t *at)
{
    return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
}

INLINED bool inflate_blocks(BitReader *reader, Codes *codes, uint8_t *out, size_t out_size)
{
    const uint8_t *start = out, *end = out + out_size;
    for (bool last = false; !last;) {
        refill(reader);
        last = take_bits(reader, 1);
        unsigned kind = take_bits(reader, 2);
        if (kind == 0 ? !copy_stored(reader, &out, end)
                      : kind == 3 || !(kind == 1 ? fixed_codes(codes) : read_codes(reader, codes)) ||
                            !inflate_block(reader, codes, start, &out, end))
            return false;
    }
    return out == end;
}

#ifdef HAS_POPCNT_VARIANT
WITH_POPCNT static bool inflate_blocks_bmi(BitReader *reader, Codes *codes, uint8_t *out,
                                           size_t out_size)
{
    return inflate_blocks(reader, codes, out, out_size);
}
#endif

static bool inflate_blocks_here(BitReader *reader, Codes *codes, uint8_t *out, size_t out_size)
{
#ifdef HAS_POPCNT_VARIANT
    if (has_popcnt())
        return inflate_blocks_bmi(reader, codes, out, out_size);
#endif
    return inflate_blocks(reader, codes, out, out_size);
}

/* Unpack a zlib stream of exactly `out_size` bytes; `out` has room for SLACK more. */
static bool inflate_exactly(const uint8_t *data, size_t size, Codes *codes, uint8_t *out,
                            size_t out_size)
{
    if (size < 6 || (data[0] & 15) != 8 || data[0] >> 4 > 7 || data[1] & 32 ||
        (data[0] * 256u + data[1]) % 31)
        return false;
    BitReader reader = {data + 2, data + size, 0, 0, 0};
    return inflate_blocks_here(&reader, codes, out, out_size) && align_to_byte(&reader) &&
           reader.end - reader.at >= 4 && load_big32(reader.at) == adler32(out, out_size);
}

/* ---- PNG ---- */

typedef struct {
    Codes codes;
    uint32_t sums[8][256]; /* CRC-32 of a byte, with 0…7 zeros behind it */
    Block joined, rows, zeros;
} PngReader;

static PngReader *new_png_reader(void)
{
    PngReader *reader = calloc(1, sizeof(PngReader));
    if (!reader)
        return NULL;
    for (uint32_t byte = 0; byte < 256; byte++) {
        uint32_t sum = byte;
        for (int bit = 0; bit < 8; bit++)
            sum = sum >> 1 ^ (sum & 1 ? 0xedb88320u : 0);
        reader->sums[0][byte] = sum;
    }
    for (int zeros = 1; zeros < 8; zeros++)
        for (int byte = 0; byte < 256; byte++) {
            uint32_t sum = reader->sums[zeros - 1][byte];
            reader->sums[zeros][byte] = sum >> 8 ^ reader->sums[0][sum & 255];
        }
    return reader;
}

static void free_png_reader(PngReader *reader)
{
    if (reader) {
        free(reader->joined.at);
        free(reader->rows.at);
        free(reader->zeros.at);
    }
    free(reader);
}

static uint32_t crc32(const PngReader *reader, const uint8_t *data, size_t size)
{
    uint32_t sum = 0xffffffffu;
    for (; size >= 8; data += 8, size -= 8) {
        uint64_t word = load64(data) ^ sum;
        sum = 0;
        for (int i = 0; i < 8; i++)
            sum ^= reader->sums[7 - i][word >> 8 * i & 255];
    }
    for (; size; size--)
        sum = sum >> 8 ^ reader->sums[0][(sum ^ *data++) & 255];
    return ~sum;
}

/* Kinds of PNG: bit depth and colour type. Never interlaced. */
typedef struct {
    uint32_t height, width;
    uint8_t depth, colour;
    uint8_t pixel; /* bytes */
} PngKind;

static bool is_header(const uint8_t *data, size_t size, const PngKind *kind)
{
    return size == 13 && load_big32(data) == kind->width && load_big32(data + 4) == kind->height &&
           data[8] == kind->depth && data[9] == kind->colour && !data[10] && !data[11] && !data[12];
}

/* Chunks that change no value. */
static bool is_harmless(const uint8_t *name)
{
    static const char known[] = "PLTEtRNSpHYsgAMAtEXttIMEsRGB";
    for (size_t i = 0; i + 4 < sizeof known; i += 4)
        if (memcmp(name, known + i, 4) == 0)
            return true;
    return false;
}

/* Append to the joined image data, which is kept in place where there is one chunk of it. */
static bool join_data(PngReader *reader, const uint8_t **joined, size_t *size, const uint8_t *data,
                      size_t length, size_t most)
{
    if (*joined == NULL) {
        *joined = data;
        *size = length;
        return true;
    }
    if (*joined != reader->joined.at) {
        if (!reserve(&reader->joined, most, 1))
            return false;
        memcpy(reader->joined.at, *joined, *size);
        *joined = reader->joined.at;
    }
    memcpy((uint8_t *)reader->joined.at + *size, data, length);
    *size += length;
    return true;
}

/* Walk the chunks; all checksums must be right and the header that of `kind`. */
static bool find_data(PngReader *reader, const uint8_t *png, size_t size, const PngKind *kind,
                      const uint8_t **data, size_t *data_size)
{
    *data = NULL;
    if (size < 8 || memcmp(png, "\x89PNG\r\n\x1a\n", 8) != 0)
        return false;
    for (size_t at = 8; size - at >= 12;) {
        size_t length = load_big32(png + at);
        const uint8_t *name = png + at + 4;
        if (length > size - at - 12 || crc32(reader, name, length + 4) != load_big32(name + 4 + length))
            return false;
        if (at == 8) {
            if (memcmp(name, "IHDR", 4) != 0 || !is_header(name + 4, length, kind))
                return false;
        } else if (memcmp(name, "IDAT", 4) == 0) {
            if (!join_data(reader, data, data_size, name + 4, length, size))
                return false;
        } else if (memcmp(name, "IEND", 4) == 0) {
            return *data != NULL;
        } else if (!is_harmless(name)) {
            return false;
        }
        at += 12 + length;
    }
    return false;
}

static uint8_t paeth(int left, int above, int corner)
{
    int by_left = abs(above - corner), by_above = abs(left - corner);
    int by_corner = abs(left + above - 2 * corner);
    int other = by_above <= by_corner ? above : corner;
    return (uint8_t)(by_left <= by_above && by_left <= by_corner ? left : other);
}

/* Undo the filter of one row in place; `above` is the row before, or zeros. */
static bool unfilter_row(int filter, const uint8_t *above, uint8_t *row, size_t size, size_t pixel)
{
    size_t i = 0;
    switch (filter) {
    case 1:
        for (i = pixel; i < size; i++)
            row[i] = (uint8_t)(row[i] + row[i - pixel]);
        return true;
    case 2:
        for (; i < size; i++)
            row[i] = (uint8_t)(row[i] + above[i]);
        return true;
    case 3:
        for (; i < pixel; i++)
            row[i] = (uint8_t)(row[i] + above[i] / 2);
        for (; i < size; i++)
            row[i] = (uint8_t)(row[i] + (row[i - pixel] + above[i]) / 2);
        return true;
    case 4:
        for (; i < pixel; i++)
            row[i] = (uint8_t)(row[i] + above[i]);
        for (; i < size; i++)
            row[i] = (uint8_t)(row[i] + paeth(row[i - pixel], above[i], above[i - pixel]));
        return true;
    default:
        return false;
    }
}

/* Undo the filters of all rows where they lie: `raw` holds a filter byte before each row of `size`
 * bytes. */
static bool unfilter_rows(uint8_t *raw, size_t rows, size_t size, size_t pixel, const uint8_t *zeros)
{
    const uint8_t *above = zeros;
    for (size_t r = 0; r < rows; r++, raw += size + 1) {
        if (raw[0] && !unfilter_row(raw[0], above, raw + 1, size, pixel))
            return false;
        above = raw + 1;
    }
    return true;
}

/* Read a plain PNG of a known kind: rows of bytes, each behind a byte that means nothing. NULL where
 * it is anything else, or damaged. */
static uint8_t *read_png(PngReader *reader, const uint8_t *png, size_t size, const PngKind *kind)
{
    const uint8_t *data;
    size_t data_size = 0, row = (size_t)kind->width * kind->pixel;
    if (kind->height == 0 || row == 0 || row >= (SIZE_MAX / 4 - SLACK) / kind->height)
        return NULL;
    size_t room = (row + 1) * kind->height;
    if (!find_data(reader, png, size, kind, &data, &data_size) || room / 1040 > data_size ||
        !reserve(&reader->rows, room + SLACK, 1) || !reserve(&reader->zeros, row, 1))
        return NULL;
    memset(reader->zeros.at, 0, row);
    uint8_t *rows = reader->rows.at;
    if (!inflate_exactly(data, data_size, &reader->codes, rows, room) ||
        !unfilter_rows(rows, kind->height, row, kind->pixel, reader->zeros.at))
        return NULL;
    return rows;
}

/* ---- evaluation of maps given as PNG ---- */

/* The runs of one row of pixels of 1 or 2 bytes (the higher first). */
INLINED uint32_t pixel_id(const uint8_t *row, size_t x, unsigned pixel)
{
    return pixel == 1 ? row[x] : (uint32_t)row[2 * x] << 8 | row[2 * x + 1];
}

/* Write where the runs of a row begin, and its width; returns the number of runs. */
INLINED size_t row_heads(const uint8_t *row, size_t width, unsigned pixel, uint32_t *heads)
{
    size_t count = 0, x = 1;
    heads[count++] = 0;
#if defined(__SSE2__)
    for (; pixel == 1 && x + 16 <= width; x += 16) {
        __m128i here = _mm_loadu_si128((const __m128i *)(row + x));
        __m128i before = _mm_loadu_si128((const __m128i *)(row + x - 1));
        unsigned found = (unsigned)_mm_movemask_epi8(_mm_cmpeq_epi8(here, before)) ^ 0xffff;
        for (; found; found &= found - 1)
            heads[count++] = (uint32_t)(x + lowest_bit(found));
    }
#endif
    for (; x < width; x++) {
        heads[count] = (uint32_t)x;
        count += pixel_id(row, x, pixel) != pixel_id(row, x - 1, pixel);
    }
    heads[count] = (uint32_t)width;
    return count;
}

/* A predicted map against the truth in the index. */
typedef struct {
    const MapIndex *truth;
    uint32_t *cells;             /* pixels by true id and predicted id */
    uint32_t *heads;             /* room for the runs of a row */
    uint32_t (*boxes)[4];        /* x0, y0, x1, y1 by predicted id */
    size_t run;                  /* of the truth, that holds the next pixel */
    uint32_t columns, most, at;  /* predicted entities and void; largest id; next pixel */
} Overlay;

/* Give the pixels up to `end` to one predicted id. */
INLINED void overlay_run(Overlay *over, uint32_t column, uint32_t end)
{
    const uint32_t *starts = over->truth->starts, *ids = over->truth->ids;
    uint32_t *cells = over->cells + column;
    size_t run = over->run;
    uint32_t at = over->at;
    for (; starts[run + 1] < end; run++) {
        cells[(size_t)ids[run] * over->columns] += starts[run + 1] - at;
        at = starts[run + 1];
    }
    cells[(size_t)ids[run] * over->columns] += end - at;
    over->run = run + (starts[run + 1] == end);
    over->at = end;
}

/* Overlay one row; false where an id is larger than any of the image. */
INLINED bool overlay_row(Overlay *over, const uint8_t *row, uint32_t y, uint32_t width, unsigned pixel)
{
    uint32_t *heads = over->heads, start = over->at, largest = 0;
    size_t count = row_heads(row, width, pixel, heads);
    for (size_t i = 0; i < count; i++) {
        uint32_t id = pixel_id(row, heads[i], pixel);
        uint32_t column = id < over->columns ? id : 0;
        uint32_t *box = over->boxes[column];
        largest = id > largest ? id : largest;
        box[0] = heads[i] < box[0] ? heads[i] : box[0];
        box[1] = y < box[1] ? y : box[1];
        box[2] = heads[i + 1] > box[2] ? heads[i + 1] : box[2];
        box[3] = y + 1;
        overlay_run(over, column, start + heads[i + 1]);
    }
    return largest <= over->most;
}

typedef struct {
    Block boxes, heads;
} MapScratch;

/* Tabulate the rows of a map of `columns - 1` entities and ids up to `most`. */
INLINED int overlay_map(Evaluator *evaluator, MapScratch *scratch, const uint8_t *rows,
                        const PngKind *kind, uint32_t columns, uint32_t most, bool *sound)
{
    if (!reserve(&scratch->boxes, columns, 16) || !reserve(&scratch->heads, (size_t)kind->width + 1, 4))
        return NO_MEMORY;
    Overlay over = {.truth = &evaluator->map,
                    .cells = evaluator->matcher.table.at,
                    .heads = scratch->heads.at,
                    .boxes = scratch->boxes.at,
                    .columns = columns,
                    .most = most};
    for (uint32_t id = 0; id < columns; id++) {
        over.boxes[id][0] = over.boxes[id][1] = UINT32_MAX;
        over.boxes[id][2] = over.boxes[id][3] = 0;
    }
    *sound = true;
    for (uint32_t y = 0; y < kind->height && *sound; y++, rows += (size_t)kind->width * kind->pixel + 1)
        *sound = kind->pixel == 1 ? overlay_row(&over, rows + 1, y, kind->width, 1)
                                  : overlay_row(&over, rows + 1, y, kind->width, 2);
    return OK;
}

/* Take the column of a prediction from the table to the row that is weighed; returns its area. */
static uint64_t take_column(Matcher *matcher, size_t num_ids, uint32_t columns, uint32_t column)
{
    const uint32_t *table = matcher->table.at;
    uint64_t area = 0;
    for (size_t id = 0; id < num_ids; id++) {
        uint32_t pixels = table[id * columns + column];
        matcher->shared_row[2 * id] = pixels;
        area += pixels;
    }
    return area;
}

static void write_box(int32_t *out, const uint32_t *box)
{
    bool empty = box[2] == 0;
    out[0] = empty ? 0 : (int32_t)box[0];
    out[1] = empty ? 0 : (int32_t)box[1];
    out[2] = empty ? 0 : (int32_t)(box[2] - box[0]);
    out[3] = empty ? 0 : (int32_t)(box[3] - box[1]);
}

/* Match the entities of a tabulated map. */
static int match_table(Matcher *matcher, const uint32_t (*boxes)[4], const double *scores,
                       uint32_t count, const Truth *truth, const Rules *rules, Records *records,
                       int64_t *num_empty)
{
    size_t num_ids = (size_t)truth->num_entities + truth->num_crowds + 1;
    uint32_t *order = rank_masks(matcher, scores, count);
    if (!order)
        return NO_MEMORY;
    *num_empty = 0;
    for (uint32_t id = 1; id <= count; id++)
        *num_empty += boxes[id][2] == 0;
    uint32_t ranked = count < rules->max_detections ? count : rules->max_detections;
    for (uint32_t rank = 0; rank < ranked; rank++) {
        uint32_t id = order[rank] + 1;
        uint64_t area = take_column(matcher, num_ids, count + 1, id);
        records->scores[rank] = scores[id - 1];
        records->prediction_ids[rank] = (int32_t)id;
        records->areas[rank] = (int64_t)area;
        if (records->boxes)
            write_box(records->boxes + 4 * rank, boxes[id]);
        if (!weigh(matcher, truth, rules, rank, area, records->best_ious + rank))
            return NO_MEMORY;
    }
    return finish_matching(matcher, truth, rules, records, ranked) ? OK : NO_MEMORY;
}

/* Predicted maps: the bytes of each PNG, or none, and how many ids it may hold. */
typedef struct {
    const Py_buffer *pngs;
    const double *scores;    /* image after image, one per entity */
    const int64_t *num_ids;  /* entities and crowds by image */
} Maps;

typedef struct {
    Evaluator evaluator;
    MapScratch scratch;
    PngReader *reader;
} MapEvaluator;

/* Read one PNG as either kind of entity map. */
static const uint8_t *read_map(PngReader *reader, const Py_buffer *png, PngKind *kind)
{
    static const uint8_t kinds[2][3] = {{8, 3, 1}, {16, 0, 2}};
    if (png->len < 26)
        return NULL;
    const uint8_t *depth = (const uint8_t *)png->buf + 24; /* in the header, which is checked yet */
    for (int i = 0; i < 2; i++) {
        kind->depth = kinds[i][0];
        kind->colour = kinds[i][1];
        kind->pixel = kinds[i][2];
        if (*depth == kind->depth)
            return read_png(reader, png->buf, (size_t)png->len, kind);
    }
    return NULL;
}

/* Match one image; `*left` is set where somebody else has to look at it. */
INLINED int match_map(MapEvaluator *self, const Maps *maps, const Py_buffer *png, int64_t image,
                      const TruthTables *tables, const Rules *rules, const ByImage *by_image,
                      const Records *all, bool *left)
{
    const ImageEntry *entry = tables->entries + image;
    Evaluator *evaluator = &self->evaluator;
    PngKind kind = {.height = entry->height, .width = entry->width};
    Truth truth;
    Records records = records_at(all, (size_t)by_image->record_offsets[image]);
    int64_t first = by_image->mask_offsets[image];
    int64_t count = by_image->mask_offsets[image + 1] - first;
    if (!truth_of(tables, (size_t)image, by_image->size_offsets[image], &truth))
        return MAP_DAMAGED;
    int status = unpack_map(&evaluator->map, tables->packed, tables->packed_size, entry);
    if (status)
        return status;
    size_t num_ids = (size_t)truth.num_entities + truth.num_crowds + 1;
    const uint8_t *rows = read_map(self->reader, png, &kind);
    *left = !rows || count > UINT16_MAX || maps->num_ids[image] < count ||
            maps->num_ids[image] > UINT16_MAX || !table_fits(num_ids, (size_t)count);
    if (*left)
        return OK;
    if (!prepare_truth(&evaluator->matcher, &truth, rules) ||
        !open_table(&evaluator->matcher, num_ids, (size_t)count))
        return NO_MEMORY;
    bool sound;
    status = overlay_map(evaluator, &self->scratch, rows, &kind, (uint32_t)count + 1,
                         (uint32_t)maps->num_ids[image], &sound);
    *left = !sound;
    if (status || !sound)
        return status;
    return match_table(&evaluator->matcher, self->scratch.boxes.at, maps->scores + first,
                       (uint32_t)count, &truth, rules, &records, by_image->num_empty + image);
}

/* Match images from `begin` on, whose PNGs are the first of `maps`, until the cells are full. */
INLINED int match_maps(MapEvaluator *self, const Maps *maps, const TruthTables *tables,
                       const Rules *rules, ByImage *by_image, const Records *all, int64_t begin,
                       int64_t end, int64_t *reached)
{
    for (int64_t image = begin; image < end; image++) {
        bool left = false;
        *reached = image;
        by_image->num_empty[image] = 0;
        int status = match_map(self, maps, maps->pngs + (image - begin), image, tables, rules,
                               by_image, all, &left);
        if (status)
            return status;
        by_image->left[image] = left;
        if (!keep_cells(by_image, &self->evaluator.matcher, tables, image))
            return OK;
    }
    *reached = end;
    return OK;
}

static int match_maps_plain(MapEvaluator *self, const Maps *maps, const TruthTables *tables,
                            const Rules *rules, ByImage *by_image, const Records *all,
                            int64_t begin, int64_t end, int64_t *reached)
{
    return match_maps(self, maps, tables, rules, by_image, all, begin, end, reached);
}

#ifdef HAS_POPCNT_VARIANT
WITH_POPCNT static int match_maps_popcnt(MapEvaluator *self, const Maps *maps,
                                         const TruthTables *tables, const Rules *rules,
                                         ByImage *by_image, const Records *all, int64_t begin,
                                         int64_t end, int64_t *reached)
{
    return match_maps(self, maps, tables, rules, by_image, all, begin, end, reached);
}
#endif

static int match_maps_here(MapEvaluator *self, const Maps *maps, const TruthTables *tables,
                           const Rules *rules, ByImage *by_image, const Records *all,
                           int64_t begin, int64_t end, int64_t *reached)
{
#ifdef HAS_POPCNT_VARIANT
    if (has_popcnt())
        return match_maps_popcnt(self, maps, tables, rules, by_image, all, begin, end, reached);
#endif
    return match_maps_plain(self, maps, tables, rules, by_image, all, begin, end, reached);
}

static int match_all_maps(const Maps *maps, const TruthTables *tables, const Rules *rules,
                          ByImage *by_image, const Records *all, int64_t begin, int64_t end,
                          int64_t *reached)
{
    MapEvaluator self = {.evaluator = {.failed_mask = -1}, .reader = new_png_reader()};
    int status = self.reader ? match_maps_here(&self, maps, tables, rules, by_image, all, begin, end,
                                               reached)
                             : NO_MEMORY;
    free_png_reader(self.reader);
    free(self.scratch.boxes.at);
    free(self.scratch.heads.at);
    free_evaluator(&self.evaluator);
    return status;
}

/* ---- assignment of any pairs ---- */

/* Pairs that may match, ascending by rank, then by true id. */
typedef struct {
    const int64_t *ranks, *truths;
    const double *ious;
    const uint8_t *crowds;  /* whether the true id takes any number of predictions */
    const uint8_t *ignored; /* by true id and way of counting */
    size_t count, ways;
} Claims;

/* COCO's choice for one prediction; `to` where it has none. */
static size_t choose_claim(const Claims *claims, size_t from, size_t to, const uint8_t *taken,
                           size_t way, double threshold)
{
    size_t best = to;
    bool best_ignored = true;
    for (size_t i = from; i < to; i++) {
        size_t truth = (size_t)claims->truths[i];
        if (claims->ious[i] < threshold || (taken[truth] && !claims->crowds[i]))
            continue;
        bool ignored = claims->ignored[truth * claims->ways + way];
        if (best == to || ignored < best_ignored ||
            (ignored == best_ignored && claims->ious[i] >= claims->ious[best])) {
            best = i;
            best_ignored = ignored;
        }
    }
    return best;
}

/* Where the results go: bits of thresholds by rank and way, and partners by rank. */
typedef struct {
    uint16_t *matched, *ignored;
    int32_t *partners;
} Assignment;

static void assign_at(const Claims *claims, uint8_t *taken, size_t way, int step, double threshold,
                      Assignment *made)
{
    for (size_t from = 0, to; from < claims->count; from = to) {
        for (to = from + 1; to < claims->count && claims->ranks[to] == claims->ranks[from]; to++)
            ;
        size_t best = choose_claim(claims, from, to, taken, way, threshold);
        if (best == to)
            continue;
        size_t truth = (size_t)claims->truths[best];
        size_t place = (size_t)claims->ranks[from] * claims->ways + way;
        taken[truth] = 1;
        made->matched[place] |= (uint16_t)(1u << step);
        if (claims->ignored[truth * claims->ways + way])
            made->ignored[place] |= (uint16_t)(1u << step);
        if (way == 0 && step == 0)
            made->partners[claims->ranks[from]] = (int32_t)truth;
    }
}

/* Whether the pairs ascend and stay inside the tables. */
static bool claims_are_sound(const Claims *claims, size_t num_ranks, size_t num_truths)
{
    bool sound = true;
    for (size_t i = 0; i < claims->count; i++) {
        sound &= claims->ranks[i] >= 0 && (uint64_t)claims->ranks[i] < num_ranks;
        sound &= claims->truths[i] >= 0 && (uint64_t)claims->truths[i] < num_truths;
        sound &= i == 0 || claims->ranks[i] >= claims->ranks[i - 1];
    }
    return sound;
}

/* ---- contingency ---- */

typedef struct {
    uint32_t truth, prediction, pixels;
} Piece;

typedef struct {
    const int32_t *starts, *ids;
    size_t num_runs;
    uint32_t num_ids;
} MapView;

/* Cut the image wherever either map changes. Predicted ids beyond `num_entities` are void. */
static size_t cut_pieces(const MapView *truth, const MapView *prediction, uint32_t num_entities,
                         uint64_t pixels, Piece *pieces)
{
    size_t t = 0, p = 0, count = 0;
    uint32_t at = 0;
    while (at < pixels) {
        uint32_t true_end = t + 1 < truth->num_runs ? (uint32_t)truth->starts[t + 1] : (uint32_t)pixels;
        uint32_t predicted_end =
            p + 1 < prediction->num_runs ? (uint32_t)prediction->starts[p + 1] : (uint32_t)pixels;
        uint32_t end = true_end < predicted_end ? true_end : predicted_end;
        uint32_t id = (uint32_t)prediction->ids[p];
        pieces[count++] = (Piece){(uint32_t)truth->ids[t], id > num_entities ? 0 : id, end - at};
        t += true_end == end;
        p += predicted_end == end;
        at = end;
    }
    return count;
}

/* One stable pass of counting sort, by the true or by the predicted id. */
static void sort_pieces(const Piece *from, Piece *to, size_t count, bool by_truth, size_t *places,
                        size_t num_ids)
{
    memset(places, 0, (num_ids + 2) * sizeof(size_t));
    for (size_t i = 0; i < count; i++)
        places[(by_truth ? from[i].truth : from[i].prediction) + 1]++;
    for (size_t id = 0; id < num_ids; id++)
        places[id + 1] += places[id];
    for (size_t i = 0; i < count; i++)
        to[places[by_truth ? from[i].truth : from[i].prediction]++] = from[i];
}

/* Sum sorted pieces by cell, in place. */
static size_t sum_cells(Piece *pieces, size_t count)
{
    size_t cells = 0;
    for (size_t i = 0; i < count; i++) {
        if (cells && pieces[cells - 1].truth == pieces[i].truth &&
            pieces[cells - 1].prediction == pieces[i].prediction)
            pieces[cells - 1].pixels += pieces[i].pixels;
        else
            pieces[cells++] = pieces[i];
    }
    return cells;
}

/* ---- dense maps and runs ---- */

/* Write the first pixel of each run of equal items; returns the number of runs. */
#define DEFINE_FIND_RUNS(name, type)                                                             \
    static size_t name(const type *items, size_t count, int32_t *starts)                         \
    {                                                                                            \
        size_t num_runs = 0;                                                                     \
        if (count)                                                                               \
            starts[num_runs++] = 0;                                                              \
        for (size_t i = 1; i < count; i++) {                                                     \
            starts[num_runs] = (int32_t)i;                                                       \
            num_runs += items[i] != items[i - 1];                                                \
        }                                                                                        \
        return num_runs;                                                                         \
    }

DEFINE_FIND_RUNS(find_runs_16, uint16_t)
DEFINE_FIND_RUNS(find_runs_32, uint32_t)
DEFINE_FIND_RUNS(find_runs_64, uint64_t)

/* Bytes, many at a time: most words lie inside one run. */
static size_t find_runs_8(const uint8_t *items, size_t count, int32_t *starts)
{
    size_t num_runs = 0, i = 1;
    if (count)
        starts[num_runs++] = 0;
#if defined(__SSE2__)
    for (; i + 16 <= count; i += 16) {
        __m128i here = _mm_loadu_si128((const __m128i *)(items + i));
        __m128i before = _mm_loadu_si128((const __m128i *)(items + i - 1));
        unsigned heads = (unsigned)_mm_movemask_epi8(_mm_cmpeq_epi8(here, before)) ^ 0xffff;
        for (; heads; heads &= heads - 1)
            starts[num_runs++] = (int32_t)(i + lowest_bit(heads));
    }
#endif
    for (; i + 8 <= count; i += 8) {
        uint64_t differs = load64(items + i) ^ load64(items + i - 1);
        uint64_t low = BYTES(0x7f), heads = (differs | ((differs & low) + low)) & ~low;
        for (; heads; heads &= heads - 1) /* the top bit of each byte that differs */
            starts[num_runs++] = (int32_t)(i + (lowest_bit(heads) >> 3));
    }
    for (; i < count; i++) {
        starts[num_runs] = (int32_t)i;
        num_runs += items[i] != items[i - 1];
    }
    return num_runs;
}

static size_t find_runs(const void *items, size_t count, int item_size, int32_t *starts)
{
    switch (item_size) {
    case 1:
        return find_runs_8(items, count, starts);
    case 2:
        return find_runs_16(items, count, starts);
    case 4:
        return find_runs_32(items, count, starts);
    default:
        return find_runs_64(items, count, starts);
    }
}

/* Areas and the four sides of the tight boxes of all ids; boxes are x0, y0, x1, y1, exclusive. */
static void widen(int64_t *box, int64_t x0, int64_t y0, int64_t x1, int64_t y1)
{
    box[0] = box[2] == 0 || x0 < box[0] ? x0 : box[0];
    box[1] = box[3] == 0 || y0 < box[1] ? y0 : box[1];
    box[2] = x1 > box[2] ? x1 : box[2];
    box[3] = y1 > box[3] ? y1 : box[3];
}

/* Widen by a run of lines of `line` pixels: rows, or columns where `transposed`. */
static void widen_by_run(int64_t *box, int64_t start, int64_t end, int64_t line, bool transposed)
{
    int64_t first = start / line, last = (end - 1) / line;
    int64_t from = first == last ? start - first * line : 0;
    int64_t upto = first == last ? end - first * line : line;
    if (transposed)
        widen(box, first, from, last + 1, upto);
    else
        widen(box, from, first, upto, last + 1);
}

/* Make x, y, width, height of x0, y0, x1, y1. */
static void close_boxes(int64_t *boxes, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        boxes[4 * i + 2] -= boxes[4 * i];
        boxes[4 * i + 3] -= boxes[4 * i + 1];
    }
}

/* Draw runs into an array of ids, four bytes each. */
static void draw_runs(const uint32_t *starts, const uint32_t *ids, size_t num_runs, uint32_t *dense)
{
    for (size_t i = 0; i < num_runs; i++)
        for (uint32_t pixel = starts[i]; pixel < starts[i + 1]; pixel++)
            dense[pixel] = ids[i];
}

/* Transpose `rows` × `columns` items block by block, so that both sides stay in the cache. */
static void transpose(const uint32_t *from, uint32_t *to, size_t rows, size_t columns)
{
    const size_t block = 16;
    for (size_t r = 0; r < rows; r += block)
        for (size_t c = 0; c < columns; c += block)
            for (size_t y = r; y < r + block && y < rows; y++)
                for (size_t x = c; x < c + block && x < columns; x++)
                    to[x * rows + y] = from[y * columns + x];
}

/* ---- packing maps ---- */

static void store16(uint8_t *at, uint32_t value)
{
    at[0] = (uint8_t)value;
    at[1] = (uint8_t)(value >> 8);
}

typedef struct {
    uint8_t *out;
    size_t room, num_runs; /* room in runs of 6 bytes */
    uint32_t *ids;
} Packer;

/* Append one run, cut where it is longer than 16 bits can say. */
static bool pack_run(Packer *packer, uint64_t length, uint32_t id)
{
    while (length) {
        uint32_t piece = length > 65535 ? 65535 : (uint32_t)length;
        if (packer->num_runs == packer->room)
            return false;
        store16(packer->out + 2 * packer->num_runs, piece);
        packer->ids[packer->num_runs++] = id;
        length -= piece;
    }
    return true;
}

/* Write the ids behind the lengths, in as few bytes as `num_ids` needs. */
static size_t pack_ids(Packer *packer, uint32_t num_ids, uint32_t *id_width)
{
    uint8_t *at = packer->out + 2 * packer->num_runs;
    unsigned width = num_ids < 256 ? 1 : num_ids < 65536 ? 2 : 4;
    for (size_t i = 0; i < packer->num_runs; i++, at += width)
        for (unsigned k = 0; k < width; k++)
            at[k] = (uint8_t)(packer->ids[i] >> 8 * k);
    *id_width = width;
    return (size_t)(at - packer->out);
}

/* ---- compiling truth given as RLE ---- */

typedef struct {
    Block runs, owners, spans, span_ids, ids;
    size_t num_runs, room;
} Gathering;

static void free_gathering(Gathering *gathering)
{
    free(gathering->runs.at);
    free(gathering->owners.at);
    free(gathering->spans.at);
    free(gathering->span_ids.at);
    free(gathering->ids.at);
}

static bool enlarge(Block *block, size_t count, size_t item)
{
    void *larger = count > SIZE_MAX / item ? NULL : realloc(block->at, count * item);
    if (larger)
        block->at = larger, block->size = count * item;
    return larger != NULL;
}

/* Append the runs of one mask under its id. */
static bool gather_runs(Gathering *gathering, const Run *runs, size_t num_runs, uint32_t id)
{
    size_t need = gathering->num_runs + num_runs;
    if (need > gathering->room) {
        size_t room = need + need / 2 + 1024;
        if (!enlarge(&gathering->runs, room, sizeof(Run)) || !enlarge(&gathering->owners, room, 4))
            return false;
        gathering->room = room;
    }
    if (num_runs)
        memcpy((Run *)gathering->runs.at + gathering->num_runs, runs, num_runs * sizeof(Run));
    for (size_t i = gathering->num_runs; i < need; i++)
        ((uint32_t *)gathering->owners.at)[i] = id;
    gathering->num_runs = need;
    return true;
}

/* Bring the gathered runs into the order of their starts, exactly one run a start, by means of
 * the index's bits; false where runs overlap. */
static int order_runs(Gathering *gathering, MapIndex *map, uint64_t pixels)
{
    const Run *runs = gathering->runs.at;
    size_t count = gathering->num_runs;
    if (!reserve_index(map, count, pixels) || !reserve(&gathering->spans, count + 1, sizeof(Run)) ||
        !reserve(&gathering->span_ids, count + 1, 4))
        return NO_MEMORY;
    for (size_t i = 0; i < count; i++)
        mark_start(map, runs[i].start);
    count_starts(map);
    uint32_t num_starts = run_at(map, (uint32_t)(pixels - 1)) + 1;
    if (num_starts != count)
        return TRUTH_OVERLAPS; /* two runs begin at one pixel */
    Run *spans = gathering->spans.at;
    uint32_t *ids = gathering->span_ids.at;
    for (size_t i = 0; i < count; i++) {
        uint32_t place = run_at(map, runs[i].start);
        spans[place] = runs[i];
        ids[place] = ((uint32_t *)gathering->owners.at)[i];
    }
    for (size_t i = 1; i < count; i++)
        if (spans[i].start < spans[i - 1].end)
            return TRUTH_OVERLAPS;
    return OK;
}

/* Pack ordered runs, void between them, and measure every id. */
static bool pack_spans(Packer *packer, const Gathering *gathering, const ImageEntry *entry,
                       int64_t *areas, int64_t *boxes)
{
    const Run *spans = gathering->spans.at;
    const uint32_t *ids = gathering->span_ids.at;
    uint64_t at = 0, pixels = entry_pixels(entry);
    for (size_t i = 0; i < gathering->num_runs; i++) {
        uint64_t length = spans[i].end - spans[i].start;
        if (!pack_run(packer, spans[i].start - at, 0) || !pack_run(packer, length, ids[i]))
            return false;
        areas[ids[i]] += (int64_t)length;
        widen_by_run(boxes + 4 * (size_t)ids[i], spans[i].start, spans[i].end, entry->height, true);
        at = spans[i].end;
    }
    return pack_run(packer, pixels - at, 0);
}

typedef struct {
    const int64_t *mask_offsets;
    ImageEntry *entries;
    int64_t *areas, *boxes; /* by id, image after image */
    size_t num_areas;
    uint8_t *out;
    size_t out_size, used;
    int64_t base; /* offset of `out` in the whole */
} Compilation;

/* Gather all masks of one image; entities and crowds are numbered 1… in their order. */
static int gather_image(Evaluator *evaluator, Gathering *gathering, const Masks *masks,
                        const int64_t *mask_offsets, uint64_t pixels)
{
    gathering->num_runs = 0;
    for (int64_t mask = mask_offsets[0]; mask < mask_offsets[1]; mask++) {
        Mask read;
        const uint8_t *text = mask_text(masks, (size_t)mask);
        evaluator->failed_mask = mask;
        if (!text)
            return RLE_UNFINISHED;
        int status = read_mask(&evaluator->reader, text, masks->lengths[mask], masks->kinds[mask],
                               pixels, &read);
        if (status)
            return status;
        if (!gather_runs(gathering, read.runs, read.num_runs,
                         (uint32_t)(mask - mask_offsets[0] + 1)))
            return NO_MEMORY;
    }
    evaluator->failed_mask = -1;
    return OK;
}

/* Upper bound of the packed size of an image, in runs. */
static size_t packed_room(size_t num_runs, uint64_t pixels)
{
    return 2 * num_runs + 1 + (size_t)(pixels / 65535) + 1;
}

/* Compile one image; `*full` is set, and nothing done, where the output has no room for it. */
static int compile_image(Evaluator *evaluator, Gathering *gathering, const Masks *masks,
                         Compilation *made, int64_t image, bool *full)
{
    ImageEntry *entry = made->entries + image;
    uint64_t pixels = entry_pixels(entry), num_ids = (uint64_t)entry->num_entities + entry->num_crowds;
    const int64_t *mask_offsets = made->mask_offsets + image;
    if (pixels == 0 || pixels > MAX_PIXELS || entry->first_id < 0 ||
        (uint64_t)entry->first_id + num_ids + 1 > made->num_areas ||
        (uint64_t)(mask_offsets[1] - mask_offsets[0]) != num_ids)
        return MAP_DAMAGED;
    int status = gather_image(evaluator, gathering, masks, mask_offsets, pixels);
    if (!status)
        status = order_runs(gathering, &evaluator->map, pixels);
    if (status)
        return status;
    size_t room = packed_room(gathering->num_runs, pixels);
    *full = room > (made->out_size - made->used) / 6;
    if (*full)
        return OK;
    if (!reserve(&gathering->ids, room, 4))
        return NO_MEMORY;
    int64_t *areas = made->areas + entry->first_id, *boxes = made->boxes + 4 * entry->first_id;
    memset(areas, 0, (num_ids + 1) * 8);
    memset(boxes, 0, (num_ids + 1) * 32);
    Packer packer = {made->out + made->used, room, 0, gathering->ids.at};
    pack_spans(&packer, gathering, entry, areas, boxes);
    close_boxes(boxes, num_ids + 1);
    areas[0] = (int64_t)pixels;
    for (uint64_t id = 1; id <= num_ids; id++)
        areas[0] -= areas[id];
    size_t size = pack_ids(&packer, (uint32_t)num_ids, &entry->id_width);
    entry->offset = made->base + (int64_t)made->used;
    entry->num_runs = (uint32_t)packer.num_runs;
    entry->check = checksum(packer.out, size);
    made->used += size;
    return OK;
}

/* ---- overlap resolved by painting ---- */

/* Draw the masks of one image, the best score last; `dense` holds mask numbers from 1. */
static void draw_masks(const int64_t *starts, const int64_t *ends, const int64_t *offsets,
                       const uint32_t *best_first, size_t num_masks, uint32_t *dense)
{
    for (size_t rank = num_masks; rank-- > 0;) {
        uint32_t mask = best_first[rank];
        for (int64_t i = offsets[mask]; i < offsets[mask + 1]; i++)
            for (int64_t pixel = starts[i]; pixel < ends[i]; pixel++)
                dense[pixel] = mask + 1;
    }
}

/* ---- accumulation ---- */

typedef struct {
    const uint16_t *hits, *ignored; /* by place in the ranking */
    const int64_t *ranks;           /* in the image, by place */
    const double *scores;
    size_t count;
    int64_t positives, cut;
    const double *recall_points;
    int num_thresholds, num_points;
} Ranking;

/* One cell of the result: strides step from recall point to recall point. */
typedef struct {
    double *precision, *scores;
    size_t stride;
} Curve;

/* Index of the first hit at which recall reaches a point: the least k with (k + 1) / n ≥ point. */
static int64_t first_reaching(double point, int64_t positives)
{
    double n = (double)positives;
    int64_t k = (int64_t)(point * n);
    while (k > 0 && (double)k / n >= point)
        k--;
    while ((double)(k + 1) / n < point)
        k++;
    return k;
}

typedef struct {
    int64_t hits[MAX_THRESHOLDS], seen[MAX_THRESHOLDS];
    double best[MAX_THRESHOLDS];
    int next[MAX_THRESHOLDS]; /* the recall point to fill next, from the last down */
} Tally;

static void count_all(const Ranking *ranking, Tally *tally)
{
    for (size_t i = 0; i < ranking->count; i++) {
        if (ranking->ranks[i] >= ranking->cut)
            continue;
        unsigned hits = ranking->hits[i], ignored = ranking->ignored[i];
        for (int t = 0; t < ranking->num_thresholds; t++) {
            tally->hits[t] += hits >> t & 1;
            tally->seen[t] += ~ignored >> t & 1;
        }
    }
}

/* A hit, seen from the end of the ranking: the envelope rises and recall points are passed. */
static void pass_hit(const int64_t *first, Tally *tally, int t, double score, Curve *curve)
{
    const double guard = 2.220446049250313e-16; /* COCO's, against 0 / 0 */
    int64_t place = --tally->hits[t];
    double precision = (double)(place + 1) / ((double)tally->seen[t] + guard);
    if (precision > tally->best[t])
        tally->best[t] = precision;
    for (; tally->next[t] >= 0 && first[tally->next[t]] >= place; tally->next[t]--) {
        curve->precision[(size_t)tally->next[t] * curve->stride] = tally->best[t];
        curve->scores[(size_t)tally->next[t] * curve->stride] = score;
    }
}

/* Walk the ranking from its end: the envelope is then a running maximum. */
static void trace_curves(const Ranking *ranking, const int64_t *first, Tally *tally, Curve *curves)
{
    const unsigned all = (1u << ranking->num_thresholds) - 1;
    for (size_t i = ranking->count; i-- > 0;) {
        if (ranking->ranks[i] >= ranking->cut)
            continue;
        unsigned hits = ranking->hits[i], counted = ~ranking->ignored[i] & all;
        for (int t = 0; counted >> t; t++) {
            if (hits >> t & 1)
                pass_hit(first, tally, t, ranking->scores[i], curves + t);
            tally->seen[t] -= counted >> t & 1;
        }
    }
}

static bool accumulate_cell(const Ranking *ranking, Curve *curves, double *recall,
                            size_t recall_stride)
{
    Tally tally = {.hits = {0}};
    int64_t *first = malloc((size_t)ranking->num_points * sizeof(int64_t));
    if (!first)
        return false;
    for (int r = 0; r < ranking->num_points; r++)
        first[r] = first_reaching(ranking->recall_points[r], ranking->positives);
    count_all(ranking, &tally);
    for (int t = 0; t < ranking->num_thresholds; t++) {
        recall[(size_t)t * recall_stride] = (double)tally.hits[t] / (double)ranking->positives;
        tally.next[t] = ranking->num_points - 1;
        while (tally.next[t] >= 0 && first[tally.next[t]] >= tally.hits[t])
            tally.next[t]--;
    }
    trace_curves(ranking, first, &tally, curves);
    free(first);
    return true;
}

/* Sort positions by falling score, ties in order: least significant byte first. Scores are not
 * negative, so their bits order as they do; bytes in which all agree are skipped. */
static bool sort_scores(const double *scores, size_t count, int64_t *order)
{
    typedef struct {
        uint64_t key;
        int64_t place;
    } Item;
    Item *items = malloc((2 * count + 1) * sizeof(Item));
    size_t(*sizes)[256] = calloc(8, sizeof *sizes);
    if (!items || !sizes || count > SIZE_MAX / (4 * sizeof(Item))) {
        free(items);
        free(sizes);
        return false;
    }
    Item *from = items, *to = items + count;
    for (size_t i = 0; i < count; i++) {
        double positive = scores[i] + 0.0; /* -0 becomes 0 */
        uint64_t bits;
        memcpy(&bits, &positive, 8);
        from[i] = (Item){~bits, (int64_t)i};
        for (int byte = 0; byte < 8; byte++)
            sizes[byte][~bits >> 8 * byte & 255]++;
    }
    for (int byte = 0; byte < 8; byte++) {
        size_t *places = sizes[byte], at = 0;
        if (count == 0 || places[from[0].key >> 8 * byte & 255] == count)
            continue;
        for (int value = 0; value < 256; value++) {
            size_t size = places[value];
            places[value] = at;
            at += size;
        }
        for (size_t i = 0; i < count; i++)
            to[places[from[i].key >> 8 * byte & 255]++] = from[i];
        Item *other = from;
        from = to;
        to = other;
    }
    for (size_t i = 0; i < count; i++)
        order[i] = from[i].place;
    free(items);
    free(sizes);
    return true;
}

/* ---- JSON rows ---- */

/* One row of results or annotations. Numbers that need more care than this scanner takes
 * (`INEXACT`) hold the byte offset of their text instead. */
typedef struct {
    int64_t image; /* the number, or the byte offset of the string */
    double score, area;
    int64_t id;
    int64_t text; /* byte offset of the RLE text, list or polygons */
    uint32_t text_size, height, width, image_size, present;
    uint8_t kind, is_crowd, unused[2];
} Row;

enum {
    HAS_IMAGE = 1,
    HAS_SCORE = 2,
    HAS_SEGMENTATION = 4,
    HAS_SIZE = 8,
    HAS_AREA = 16,
    HAS_CROWD = 32,
    HAS_ID = 64,
    IMAGE_IS_TEXT = 128,
    IMAGE_ESCAPED = 256,
    SCORE_INEXACT = 512,
    AREA_INEXACT = 1024,
};

typedef struct {
    const uint8_t *text;
    size_t size, at;
    int status;
} Scanner;

static bool fail(Scanner *scanner, int status)
{
    if (!scanner->status)
        scanner->status = scanner->at >= scanner->size ? JSON_END : status;
    return false;
}

static void skip_space(Scanner *scanner)
{
    while (scanner->at < scanner->size) {
        uint8_t c = scanner->text[scanner->at];
        if (c != ' ' && c != '\n' && c != '\r' && c != '\t')
            return;
        scanner->at++;
    }
}

static int peek(Scanner *scanner)
{
    skip_space(scanner);
    return scanner->at < scanner->size ? scanner->text[scanner->at] : -1;
}

static bool take(Scanner *scanner, int wanted)
{
    if (peek(scanner) != wanted)
        return fail(scanner, JSON_CHARACTER);
    scanner->at++;
    return true;
}

/* Place of the next quote, backslash or control character. */
INLINED size_t next_special(const uint8_t *text, size_t at, size_t size)
{
#if defined(__SSE2__)
    const __m128i quote = _mm_set1_epi8('"'), backslash = _mm_set1_epi8('\\');
    const __m128i highest = _mm_set1_epi8(31);
    for (; at + 16 <= size; at += 16) {
        __m128i word = _mm_loadu_si128((const __m128i *)(text + at));
        __m128i control = _mm_cmpeq_epi8(_mm_min_epu8(word, highest), word);
        __m128i found = _mm_or_si128(_mm_cmpeq_epi8(word, quote), _mm_cmpeq_epi8(word, backslash));
        unsigned mask = (unsigned)_mm_movemask_epi8(_mm_or_si128(found, control));
        if (mask)
            return at + lowest_bit(mask);
    }
#endif
    while (at < size && text[at] != '"' && text[at] != '\\' && text[at] >= 32)
        at++;
    return at;
}

static bool is_hex(uint8_t c)
{
    return (c >= '0' && c <= '9') || ((c | 32) >= 'a' && (c | 32) <= 'f');
}

INLINED bool is_simple_escape(uint8_t c)
{
    return c == '\\' || c == '"' || c == '/' || c == 'b' || c == 'f' || c == 'n' || c == 'r' ||
           c == 't';
}

INLINED bool skip_escape(Scanner *scanner)
{
    const uint8_t *at = scanner->text + scanner->at + 1;
    if (scanner->at + 1 < scanner->size && is_simple_escape(*at)) {
        scanner->at += 2;
        return true;
    }
    if (scanner->at + 5 < scanner->size && *at == 'u' && is_hex(at[1]) && is_hex(at[2]) &&
        is_hex(at[3]) && is_hex(at[4])) {
        scanner->at += 6;
        return true;
    }
    scanner->at++;
    return fail(scanner, JSON_CHARACTER);
}

typedef struct {
    size_t at, size;
    bool escaped;
} Text;

static bool scan_string(Scanner *scanner, Text *string)
{
    if (!take(scanner, '"'))
        return false;
    string->at = scanner->at;
    string->escaped = false;
    for (;;) {
        scanner->at = next_special(scanner->text, scanner->at, scanner->size);
        if (scanner->at >= scanner->size)
            return fail(scanner, JSON_END);
        uint8_t c = scanner->text[scanner->at];
        if (c == '"')
            break;
        if (c != '\\')
            return fail(scanner, JSON_CHARACTER);
        string->escaped = true;
        if (!skip_escape(scanner))
            return false;
    }
    string->size = scanner->at++ - string->at;
    return true;
}

static bool is_digit(const Scanner *scanner)
{
    return scanner->at < scanner->size && scanner->text[scanner->at] >= '0' &&
           scanner->text[scanner->at] <= '9';
}

/* A number as JSON spells it: ± digits × 10^power, `whole` where there is no point or exponent. */
typedef struct {
    size_t at;
    uint64_t digits;
    int64_t power;
    bool negative, whole, exact; /* exact: `digits` has not overflowed */
} Number;

static bool scan_digits(Scanner *scanner, Number *number, bool behind_point)
{
    if (!is_digit(scanner))
        return fail(scanner, JSON_CHARACTER);
    for (; is_digit(scanner); scanner->at++) {
        unsigned digit = scanner->text[scanner->at] - '0';
        if (number->digits > (UINT64_MAX - digit) / 10)
            number->exact = false;
        number->digits = number->digits * 10 + digit;
        number->power -= behind_point;
    }
    return true;
}

static bool scan_exponent(Scanner *scanner, Number *number)
{
    bool negative = false;
    int64_t exponent = 0;
    scanner->at++;
    if (scanner->at < scanner->size &&
        (scanner->text[scanner->at] == '-' || scanner->text[scanner->at] == '+'))
        negative = scanner->text[scanner->at++] == '-';
    if (!is_digit(scanner))
        return fail(scanner, JSON_CHARACTER);
    for (; is_digit(scanner); scanner->at++)
        if (exponent < 100000)
            exponent = exponent * 10 + (scanner->text[scanner->at] - '0');
    number->power += negative ? -exponent : exponent;
    return true;
}

static bool refuse_not_finite(Scanner *scanner)
{
    int c = peek(scanner);
    return c == 'N' || c == 'I' ? fail(scanner, JSON_NOT_FINITE) : fail(scanner, JSON_CHARACTER);
}

static bool scan_number(Scanner *scanner, Number *number)
{
    int c = peek(scanner);
    *number = (Number){.at = scanner->at, .whole = true, .exact = true};
    if (c == '-') {
        number->negative = true;
        scanner->at++;
    }
    if (!is_digit(scanner))
        return refuse_not_finite(scanner);
    if (scanner->text[scanner->at] == '0')
        scanner->at++;
    else if (!scan_digits(scanner, number, false))
        return false;
    if (scanner->at < scanner->size && scanner->text[scanner->at] == '.') {
        number->whole = false;
        scanner->at++;
        if (!scan_digits(scanner, number, true))
            return false;
    }
    if (scanner->at < scanner->size && (scanner->text[scanner->at] | 32) == 'e') {
        number->whole = false;
        return scan_exponent(scanner, number);
    }
    return true;
}

/* `digits` / 5^`power` / 2^`power`, rounded once, to even: long division, a bit at a time. */
static double divide_exactly(uint64_t digits, int power)
{
    uint64_t divisor = 1, quotient = 0, rest;
    int exponent = -power;
    for (int i = 0; i < power; i++)
        divisor *= 5;
    for (; !(digits >> 63); exponent--)
        digits <<= 1;
    for (; !(divisor >> 63); exponent++)
        divisor <<= 1;
    rest = digits;
    if (rest < divisor) { /* now the quotient is in [1, 2) */
        rest <<= 1;
        exponent--;
        quotient = 1;
        rest -= divisor; /* right modulo 2^64, as the quotient is below 2 */
    } else {
        quotient = 1;
        rest -= divisor;
    }
    for (int bit = 0; bit < 54; bit++) {
        uint64_t carry = rest >> 63;
        rest <<= 1;
        quotient <<= 1;
        if (carry || rest >= divisor) {
            rest -= divisor;
            quotient |= 1;
        }
    }
    /* 55 bits: 53 to keep, two to round with, and the rest */
    uint64_t tail = quotient & 3, kept = quotient >> 2;
    kept += tail > 2 || (tail == 2 && (rest != 0 || (kept & 1))) || (tail == 3);
    return ldexp((double)kept, exponent - 52);
}

/* The nearest double, or false where that takes more than is done here. */
static bool number_value(const Number *number, double *value)
{
    static const double tens[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,
                                  1e8,  1e9,  1e10, 1e11, 1e12, 1e13, 1e14, 1e15,
                                  1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};
    const uint64_t exact = (uint64_t)1 << 53;
    if (!number->exact)
        return false;
    if (number->digits == 0)
        *value = 0;
    else if (number->power == 0)
        *value = (double)number->digits;
    else if (number->digits <= exact && number->power >= -22 && number->power <= 22)
        *value = number->power < 0 ? (double)number->digits / tens[-number->power]
                                   : (double)number->digits * tens[number->power];
    else if (number->power < 0 && number->power >= -27)
        *value = divide_exactly(number->digits, (int)-number->power);
    else
        return false;
    if (number->negative)
        *value = -*value;
    return true;
}

/* An integer, or false with JSON_TYPE. `3.0` counts: some writers make floats of all numbers. */
static bool scan_integer(Scanner *scanner, int64_t *value)
{
    Number number;
    double real;
    if (!scan_number(scanner, &number))
        return false;
    if (number.whole && number.exact && number.digits <= INT64_MAX) {
        *value = number.negative ? -(int64_t)number.digits : (int64_t)number.digits;
        return true;
    }
    if (!number.whole && number_value(&number, &real) && fabs(real) < 9e15 && floor(real) == real) {
        *value = (int64_t)real;
        return true;
    }
    scanner->at = number.at;
    return fail(scanner, JSON_TYPE);
}

/* A float; where it is hard the offset of its text, and true in `inexact`. */
static bool scan_float(Scanner *scanner, double *value, bool *inexact)
{
    Number number;
    int c = peek(scanner);
    if (c == '"' || c == '{' || c == '[' || c == 't' || c == 'f' || c == 'n')
        return fail(scanner, JSON_TYPE);
    if (!scan_number(scanner, &number))
        return false;
    *inexact = !number_value(&number, value);
    if (*inexact)
        *value = (double)number.at;
    return true;
}

static bool skip_word(Scanner *scanner, const char *word)
{
    size_t size = strlen(word);
    if (scanner->size - scanner->at < size || memcmp(scanner->text + scanner->at, word, size) != 0)
        return fail(scanner, JSON_CHARACTER);
    scanner->at += size;
    return true;
}

static bool skip_scalar(Scanner *scanner, int c)
{
    Text string;
    Number number;
    switch (c) {
    case '"':
        return scan_string(scanner, &string);
    case 't':
        return skip_word(scanner, "true");
    case 'f':
        return skip_word(scanner, "false");
    case 'n':
        return skip_word(scanner, "null");
    default:
        return scan_number(scanner, &number);
    }
}

/* Open brackets, innermost in the lowest bit; 1 is an object. */
typedef struct {
    uint64_t objects[MAX_DEPTH / 64];
    int depth;
} Nesting;

static bool is_object(const Nesting *nesting)
{
    int level = nesting->depth - 1;
    return nesting->objects[level / 64] >> (level % 64) & 1;
}

static bool open_bracket(Scanner *scanner, Nesting *nesting, bool object)
{
    if (nesting->depth == MAX_DEPTH)
        return fail(scanner, JSON_DEPTH);
    int level = nesting->depth++;
    uint64_t bit = (uint64_t)1 << (level % 64);
    nesting->objects[level / 64] = (nesting->objects[level / 64] & ~bit) | (object ? bit : 0);
    scanner->at++;
    return true;
}

static bool skip_key(Scanner *scanner)
{
    Text key;
    return scan_string(scanner, &key) && take(scanner, ':');
}

/* After a value inside brackets: close those that end, and stand before the next value. */
static bool close_brackets(Scanner *scanner, Nesting *nesting)
{
    while (nesting->depth > 0) {
        bool object = is_object(nesting);
        int c = peek(scanner);
        if (c == ',') {
            scanner->at++;
            return object ? skip_key(scanner) : true;
        }
        if (!take(scanner, object ? '}' : ']'))
            return false;
        nesting->depth--;
    }
    return true;
}

/* Skip any value, checking its syntax. No recursion: depth is bounded, the stack is not used. */
static bool skip_value(Scanner *scanner)
{
    Nesting nesting = {.depth = 0};
    do {
        int c = peek(scanner);
        if (c == '{' || c == '[') {
            bool object = c == '{';
            if (!open_bracket(scanner, &nesting, object))
                return false;
            if (peek(scanner) == (object ? '}' : ']')) {
                scanner->at++;
                nesting.depth--;
            } else if (object) {
                if (!skip_key(scanner))
                    return false;
                continue;
            } else {
                continue;
            }
        } else if (!skip_scalar(scanner, c)) {
            return false;
        }
        if (!close_brackets(scanner, &nesting))
            return false;
    } while (nesting.depth > 0);
    return true;
}

INLINED bool is_named(const Scanner *scanner, const Text *key, const char *name)
{
    return key->size == strlen(name) && memcmp(scanner->text + key->at, name, key->size) == 0;
}

/* Whether another member follows `{` or `,`; takes the closing bracket where not. */
static bool next_member(Scanner *scanner, bool *first, int closing)
{
    if (scanner->status)
        return false;
    int c = peek(scanner);
    if (c == closing) {
        scanner->at++;
        return false;
    }
    if (!*first && !take(scanner, ','))
        return false;
    *first = false;
    return true;
}

static bool scan_size(Scanner *scanner, Row *row)
{
    int64_t height, width;
    if (peek(scanner) != '[')
        return fail(scanner, JSON_TYPE);
    scanner->at++;
    if (!scan_integer(scanner, &height) || !take(scanner, ',') || !scan_integer(scanner, &width) ||
        !take(scanner, ']'))
        return false;
    row->height = height < 0 || height > UINT32_MAX ? 0 : (uint32_t)height;
    row->width = width < 0 || width > UINT32_MAX ? 0 : (uint32_t)width;
    row->present |= HAS_SIZE;
    return true;
}

/* Remember where a value is, and skip it. */
static bool scan_extent(Scanner *scanner, Row *row, int kind)
{
    peek(scanner);
    size_t from = scanner->at;
    if (!skip_value(scanner))
        return false;
    if (scanner->at - from > UINT32_MAX)
        return fail(scanner, JSON_TYPE);
    row->text = (int64_t)from;
    row->text_size = (uint32_t)(scanner->at - from);
    row->kind = (uint8_t)kind;
    row->present |= HAS_SEGMENTATION;
    return true;
}

static bool scan_counts(Scanner *scanner, Row *row)
{
    Text string;
    int c = peek(scanner);
    if (c == '[')
        return scan_extent(scanner, row, SEGMENT_LIST);
    if (c != '"')
        return fail(scanner, JSON_TYPE);
    if (!scan_string(scanner, &string))
        return false;
    if (string.size > UINT32_MAX)
        return fail(scanner, JSON_TYPE);
    row->text = (int64_t)string.at;
    row->text_size = (uint32_t)string.size;
    row->kind = string.escaped ? SEGMENT_ESCAPED : SEGMENT_TEXT;
    row->present |= HAS_SEGMENTATION;
    return true;
}

static bool scan_segmentation(Scanner *scanner, Row *row)
{
    bool first = true;
    int c = peek(scanner);
    if (c == '[')
        return scan_extent(scanner, row, SEGMENT_POLYGONS);
    if (c != '{')
        return fail(scanner, JSON_TYPE);
    scanner->at++;
    while (next_member(scanner, &first, '}')) {
        Text key;
        if (!scan_string(scanner, &key) || !take(scanner, ':'))
            return false;
        bool fine = is_named(scanner, &key, "counts") ? scan_counts(scanner, row)
                    : is_named(scanner, &key, "size") ? scan_size(scanner, row)
                                                      : skip_value(scanner);
        if (!fine)
            return false;
    }
    return !scanner->status;
}

static bool scan_image(Scanner *scanner, Row *row)
{
    Text string;
    row->present = (row->present | HAS_IMAGE) & ~(unsigned)(IMAGE_IS_TEXT | IMAGE_ESCAPED);
    if (peek(scanner) != '"')
        return scan_integer(scanner, &row->image);
    if (!scan_string(scanner, &string) || string.size > UINT32_MAX)
        return fail(scanner, JSON_TYPE);
    row->image = (int64_t)string.at;
    row->image_size = (uint32_t)string.size;
    row->present |= IMAGE_IS_TEXT | (string.escaped ? IMAGE_ESCAPED : 0);
    return true;
}

static bool scan_crowd(Scanner *scanner, Row *row)
{
    int64_t value = 0;
    int c = peek(scanner);
    bool fine = c == 't'   ? (value = 1, skip_word(scanner, "true"))
                : c == 'f' ? skip_word(scanner, "false")
                           : scan_integer(scanner, &value);
    row->is_crowd = value != 0;
    row->present |= HAS_CROWD;
    return fine;
}

/* An id counts only where it is an integer. */
static bool scan_id(Scanner *scanner, Row *row)
{
    int c = peek(scanner);
    if (c != '-' && (c < '0' || c > '9'))
        return skip_value(scanner);
    row->present |= HAS_ID;
    return scan_integer(scanner, &row->id);
}

static bool scan_row_float(Scanner *scanner, Row *row, double *value, unsigned has,
                           unsigned inexact)
{
    bool hard = false;
    if (!scan_float(scanner, value, &hard))
        return false;
    row->present = (row->present & ~inexact) | has | (hard ? inexact : 0);
    return true;
}

static bool scan_member(Scanner *scanner, Row *row)
{
    Text key;
    if (!scan_string(scanner, &key) || !take(scanner, ':'))
        return false;
    switch (key.size) {
    case 2:
        if (is_named(scanner, &key, "id"))
            return scan_id(scanner, row);
        break;
    case 4:
        if (is_named(scanner, &key, "area"))
            return scan_row_float(scanner, row, &row->area, HAS_AREA, AREA_INEXACT);
        break;
    case 5:
        if (is_named(scanner, &key, "score"))
            return scan_row_float(scanner, row, &row->score, HAS_SCORE, SCORE_INEXACT);
        break;
    case 7:
        if (is_named(scanner, &key, "iscrowd"))
            return scan_crowd(scanner, row);
        break;
    case 8:
        if (is_named(scanner, &key, "image_id"))
            return scan_image(scanner, row);
        break;
    case 12:
        if (is_named(scanner, &key, "segmentation"))
            return scan_segmentation(scanner, row);
        break;
    default:
        break;
    }
    return skip_value(scanner);
}

static bool scan_row(Scanner *scanner, Row *row)
{
    bool first = true;
    memset(row, 0, sizeof *row);
    if (!take(scanner, '{'))
        return false;
    while (next_member(scanner, &first, '}'))
        if (!scan_member(scanner, row))
            return false;
    return !scanner->status;
}

/* Scan rows of a list until `room` is used up or the list ends. `scanner` stands behind `[`, or
 * behind the comma after the last row scanned; afterwards likewise, or behind `]`. */
static size_t scan_rows(Scanner *scanner, Row *rows, size_t room, bool *done)
{
    size_t count = 0;
    *done = false;
    if (peek(scanner) == ']') {
        scanner->at++;
        *done = true;
        return 0;
    }
    while (count < room) {
        if (!scan_row(scanner, rows + count))
            return count;
        count++;
        int c = peek(scanner);
        *done = c == ']';
        if (c != ']' && c != ',') {
            fail(scanner, JSON_CHARACTER);
            return count;
        }
        scanner->at++;
        if (*done)
            return count;
    }
    return count;
}

/* ---- what Python sees ---- */

/* A buffer that Python lent, with what is checked of it. */
typedef struct {
    Py_buffer view;
    size_t count;
} Lent;

static bool whole_items(Lent *lent, size_t item, size_t at_least, const char *name)
{
    lent->count = (size_t)lent->view.len / item;
    if ((size_t)lent->view.len % item == 0 && lent->count >= at_least)
        return true;
    PyErr_Format(PyExc_ValueError, "buffer `%s` has %zd bytes, expected at least %zu items of %zu",
                 name, lent->view.len, at_least, item);
    return false;
}

static void give_back(Lent *lent, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (lent[i].view.obj)
            PyBuffer_Release(&lent[i].view);
}

/* Borrow `count` buffers from a tuple of arguments starting at `first`. */
static bool borrow(PyObject *arguments, Py_ssize_t first, Lent *lent, size_t count,
                   const char *writable)
{
    for (size_t i = 0; i < count; i++)
        lent[i].view.obj = NULL;
    for (size_t i = 0; i < count; i++) {
        PyObject *object = PyTuple_GetItem(arguments, first + (Py_ssize_t)i);
        int flags = writable[i] == 'w' ? PyBUF_WRITABLE : PyBUF_SIMPLE;
        if (!object || PyObject_GetBuffer(object, &lent[i].view, flags) < 0) {
            give_back(lent, i);
            return false;
        }
    }
    return true;
}

static bool starts_from_zero(const int64_t *offsets, size_t count, size_t upto)
{
    if (offsets[0] != 0 || offsets[count] < 0 || (uint64_t)offsets[count] > upto)
        return false;
    for (size_t i = 0; i < count; i++)
        if (offsets[i + 1] < offsets[i])
            return false;
    return true;
}

static PyObject *refuse(const char *what)
{
    PyErr_SetString(PyExc_ValueError, what);
    return NULL;
}

/* scan_rows(text, out, position) -> (rows, position, done, status) */
static PyObject *py_scan_rows(PyObject *module, PyObject *arguments)
{
    Lent lent[2];
    PyObject *text, *out;
    Py_ssize_t position;
    (void)module;
    if (!PyArg_ParseTuple(arguments, "OOn:scan_rows", &text, &out, &position))
        return NULL;
    if (!borrow(arguments, 0, lent, 2, "rw"))
        return NULL;
    PyObject *result = NULL;
    if (position < 0 || position > lent[0].view.len) {
        refuse("the position is outside the text");
    } else if (whole_items(&lent[1], sizeof(Row), 1, "out")) {
        Scanner scanner = {lent[0].view.buf, (size_t)lent[0].view.len, (size_t)position, OK};
        bool done;
        size_t count;
        Py_BEGIN_ALLOW_THREADS;
        count = scan_rows(&scanner, lent[1].view.buf, lent[1].count, &done);
        Py_END_ALLOW_THREADS;
        result = Py_BuildValue("nnOi", (Py_ssize_t)count, (Py_ssize_t)scanner.at,
                               done ? Py_True : Py_False, scanner.status);
    }
    give_back(lent, 2);
    return result;
}

/* skip_value(text, position) -> (position behind the value, status) */
static PyObject *py_skip_value(PyObject *module, PyObject *arguments)
{
    Lent lent[1];
    PyObject *text;
    Py_ssize_t position;
    (void)module;
    if (!PyArg_ParseTuple(arguments, "On:skip_value", &text, &position) ||
        !borrow(arguments, 0, lent, 1, "r"))
        return NULL;
    PyObject *result = NULL;
    if (position < 0 || position > lent[0].view.len) {
        refuse("the position is outside the text");
    } else {
        Scanner scanner = {lent[0].view.buf, (size_t)lent[0].view.len, (size_t)position, OK};
        Py_BEGIN_ALLOW_THREADS;
        skip_value(&scanner);
        Py_END_ALLOW_THREADS;
        result = Py_BuildValue("ni", (Py_ssize_t)scanner.at, scanner.status);
    }
    give_back(lent, 1);
    return result;
}

static bool lend_masks(Lent *lent, Masks *masks, size_t *count)
{
    /* text, extra, offsets, lengths, kinds, scores */
    if (!whole_items(&lent[2], 8, 0, "offsets"))
        return false;
    *count = lent[2].count;
    if (!whole_items(&lent[3], 4, *count, "lengths") || !whole_items(&lent[4], 1, *count, "kinds") ||
        !whole_items(&lent[5], 8, *count, "scores"))
        return false;
    *masks = (Masks){.text = lent[0].view.buf,
                     .extra = lent[1].view.buf,
                     .text_size = (size_t)lent[0].view.len,
                     .extra_size = (size_t)lent[1].view.len,
                     .offsets = lent[2].view.buf,
                     .lengths = lent[3].view.buf,
                     .kinds = lent[4].view.buf,
                     .scores = lent[5].view.buf};
    return true;
}

static bool lend_rules(Lent *lent, Rules *rules)
{
    /* thresholds, ranges */
    if (!whole_items(&lent[0], 8, 1, "thresholds") || !whole_items(&lent[1], 8, 2 * NUM_AREAS, "ranges"))
        return false;
    if (lent[0].count > MAX_THRESHOLDS || lent[1].count != 2 * NUM_AREAS) {
        refuse("too many thresholds, or not four area ranges");
        return false;
    }
    rules->thresholds = lent[0].view.buf;
    rules->num_thresholds = (int)lent[0].count;
    rules->ranges = lent[1].view.buf;
    if (rules->thresholds[0] > 0)
        return true;
    refuse("thresholds must be above 0");
    return false;
}

static bool lend_records(Lent *lent, Records *records, size_t rows)
{
    /* scores, prediction_ids, areas, matched, ignored, best_ious, partners */
    static const char *const names[] = {"scores",  "prediction_ids", "areas",   "matched",
                                        "ignored", "best_ious",      "partners"};
    static const size_t sizes[] = {8, 4, 8, 2 * NUM_AREAS, 2 * NUM_AREAS, 8, 4};
    for (int i = 0; i < 7; i++)
        if (!whole_items(&lent[i], sizes[i], rows, names[i]))
            return false;
    *records = (Records){lent[0].view.buf, lent[1].view.buf, lent[2].view.buf, lent[3].view.buf,
                         lent[4].view.buf, lent[5].view.buf, lent[6].view.buf, NULL};
    return true;
}

static bool lend_truth(Lent *lent, TruthTables *tables, size_t *num_images)
{
    /* packed, entries, areas, sizes */
    if (!whole_items(&lent[1], sizeof(ImageEntry), 0, "entries") ||
        !whole_items(&lent[2], 8, 0, "areas") || !whole_items(&lent[3], 8, 0, "sizes"))
        return false;
    *num_images = lent[1].count;
    *tables = (TruthTables){lent[0].view.buf, (size_t)lent[0].view.len, lent[1].view.buf,
                            lent[2].view.buf, lent[3].view.buf,         lent[2].count,
                            lent[3].count};
    return true;
}

/* Borrow `count` buffers at the head of the arguments and parse the numbers behind them. */
static bool open_call(PyObject *arguments, Lent *lent, Py_ssize_t count, const char *modes,
                      const char *format, ...)
{
    for (Py_ssize_t i = 0; i < count; i++)
        lent[i].view.obj = NULL;
    if (PyTuple_Size(arguments) < count) {
        PyErr_SetString(PyExc_TypeError, "too few arguments");
        return false;
    }
    PyObject *numbers = PyTuple_GetSlice(arguments, count, PyTuple_Size(arguments));
    if (!numbers)
        return false;
    va_list places;
    va_start(places, format);
    bool parsed = PyArg_VaParse(numbers, format, places);
    va_end(places);
    Py_DECREF(numbers);
    return parsed && borrow(arguments, 0, lent, (size_t)count, modes);
}

/* Each image has as many rows as predictions, but at most the cut. */
static bool rows_fit(const ByImage *by_image, size_t num_images, uint32_t cut)
{
    for (size_t i = 0; i < num_images; i++) {
        int64_t masks = by_image->mask_offsets[i + 1] - by_image->mask_offsets[i];
        int64_t rows = by_image->record_offsets[i + 1] - by_image->record_offsets[i];
        if (rows < (masks < (int64_t)cut ? masks : (int64_t)cut))
            return false;
    }
    return true;
}

/* What an evaluation of many images borrows, masks or maps apart: packed, entries, areas, sizes,
 * thresholds, ranges, prediction_offsets, record_offsets, size_offsets, left, num_empty, the seven
 * columns of records, num_cells, cells, boxes. No room for cells: no tables and no boxes. */
enum { NUM_EVALUATION_BUFFERS = 21 };
#define EVALUATION_MODES "rrrrrrrrrwwwwwwwwwwww"

typedef struct {
    TruthTables tables;
    Rules rules;
    ByImage by_image;
    Records records;
    size_t num_images;
} Evaluation;

static bool lend_by_image(Lent *lent, ByImage *by_image, size_t num_images)
{
    static const char *const names[] = {"prediction_offsets", "record_offsets", "size_offsets"};
    for (int i = 0; i < 3; i++)
        if (!whole_items(&lent[i], 8, num_images + 1, names[i]))
            return false;
    if (!whole_items(&lent[3], 1, num_images, "left") ||
        !whole_items(&lent[4], 8, num_images, "num_empty") ||
        !whole_items(&lent[12], 8, num_images, "num_cells") || !whole_items(&lent[13], 12, 0, "cells"))
        return false;
    *by_image = (ByImage){lent[0].view.buf, lent[1].view.buf,  lent[2].view.buf,
                          lent[3].view.buf, lent[4].view.buf,  lent[12].view.buf,
                          lent[13].view.buf, lent[13].count, 0};
    return true;
}

/* Check all of it; `begin` and `end` are the images to be evaluated. */
static bool lend_evaluation(Lent *lent, size_t num_predictions, Py_ssize_t begin, Py_ssize_t end,
                            Evaluation *made)
{
    if (!lend_truth(lent, &made->tables, &made->num_images) || !lend_rules(lent + 4, &made->rules) ||
        !lend_by_image(lent + 6, &made->by_image, made->num_images))
        return false;
    const int64_t *rows = made->by_image.record_offsets;
    if (!starts_from_zero(made->by_image.mask_offsets, made->num_images, num_predictions) ||
        !starts_from_zero(rows, made->num_images, SIZE_MAX / 64) ||
        !rows_fit(&made->by_image, made->num_images, made->rules.max_detections)) {
        refuse("offsets do not ascend, or the records do not hold the predictions");
        return false;
    }
    if (begin < 0 || begin > end || (size_t)end > made->num_images) {
        refuse("the range of images is outside the truth");
        return false;
    }
    size_t num_rows = (size_t)rows[made->num_images];
    if (!lend_records(lent + 11, &made->records, num_rows) ||
        !whole_items(&lent[20], 16, made->by_image.room ? num_rows : 0, "boxes"))
        return false;
    made->records.boxes = made->by_image.room ? lent[20].view.buf : NULL;
    return true;
}

/* match_rle(6 buffers of masks, 21 of an evaluation, begin, end, max_detections, crowds_ignore,
 * void_ignores) -> (status, image, mask, cells): the images before `image` are done */
static PyObject *py_match_rle(PyObject *module, PyObject *arguments)
{
    Lent lent[6 + NUM_EVALUATION_BUFFERS];
    Evaluation made;
    Py_ssize_t begin, end;
    int crowds_ignore, void_ignores;
    Masks masks;
    size_t num_masks;
    (void)module;
    if (!open_call(arguments, lent, 6 + NUM_EVALUATION_BUFFERS, "rrrrrr" EVALUATION_MODES,
                   "nnIpp:match_rle", &begin, &end, &made.rules.max_detections, &crowds_ignore,
                   &void_ignores))
        return NULL;
    PyObject *result = NULL;
    made.rules.crowds_ignore = crowds_ignore;
    made.rules.void_ignores = void_ignores;
    if (lend_masks(lent, &masks, &num_masks) &&
        lend_evaluation(lent + 6, num_masks, begin, end, &made)) {
        Evaluator evaluator = {.failed_mask = -1};
        int64_t reached = begin;
        int status;
        Py_BEGIN_ALLOW_THREADS;
        status = match_images_here(&evaluator, &masks, &made.tables, &made.rules, &made.by_image,
                                   &made.records, begin, end, &reached);
        free_evaluator(&evaluator);
        Py_END_ALLOW_THREADS;
        result = Py_BuildValue("iLLn", status, (long long)reached, (long long)evaluator.failed_mask,
                               (Py_ssize_t)made.by_image.used);
    }
    give_back(lent, 6 + NUM_EVALUATION_BUFFERS);
    return result;
}

static void give_back_pngs(Py_buffer *pngs, Py_ssize_t count)
{
    for (Py_ssize_t i = 0; i < count; i++)
        if (pngs[i].obj)
            PyBuffer_Release(&pngs[i]);
    free(pngs);
}

/* Borrow the PNGs of a list of exactly `count` bytes or None; NULL with an exception. */
static Py_buffer *borrow_pngs(PyObject *list, Py_ssize_t count)
{
    if (!PyList_Check(list) || PyList_Size(list) != count) {
        refuse("expected a list of one PNG for each image");
        return NULL;
    }
    Py_buffer *pngs = calloc((size_t)count + 1, sizeof(Py_buffer));
    if (!pngs) {
        PyErr_NoMemory();
        return NULL;
    }
    for (Py_ssize_t i = 0; i < count; i++) {
        PyObject *png = PyList_GetItem(list, i);
        if (png != Py_None && PyObject_GetBuffer(png, &pngs[i], PyBUF_SIMPLE) < 0) {
            pngs[i].obj = NULL;
            give_back_pngs(pngs, i);
            return NULL;
        }
    }
    return pngs;
}

/* match_png(scores, num_ids, 21 buffers of an evaluation, pngs, begin, end, max_detections,
 * crowds_ignore, void_ignores) -> (status, image, cells): the images before `image` are done */
static PyObject *py_match_png(PyObject *module, PyObject *arguments)
{
    Lent lent[2 + NUM_EVALUATION_BUFFERS];
    Evaluation made;
    PyObject *list;
    Py_ssize_t begin, end;
    int crowds_ignore, void_ignores;
    (void)module;
    if (!open_call(arguments, lent, 2 + NUM_EVALUATION_BUFFERS, "rr" EVALUATION_MODES,
                   "OnnIpp:match_png", &list, &begin, &end, &made.rules.max_detections,
                   &crowds_ignore, &void_ignores))
        return NULL;
    PyObject *result = NULL;
    Py_buffer *pngs = NULL;
    made.rules.crowds_ignore = crowds_ignore;
    made.rules.void_ignores = void_ignores;
    if (whole_items(&lent[0], 8, 0, "scores") &&
        lend_evaluation(lent + 2, lent[0].count, begin, end, &made) &&
        whole_items(&lent[1], 8, made.num_images, "num_ids") &&
        (pngs = borrow_pngs(list, end - begin)) != NULL) {
        Maps maps = {pngs, lent[0].view.buf, lent[1].view.buf};
        int64_t reached = begin;
        int status;
        Py_BEGIN_ALLOW_THREADS;
        status = match_all_maps(&maps, &made.tables, &made.rules, &made.by_image, &made.records,
                                begin, end, &reached);
        Py_END_ALLOW_THREADS;
        give_back_pngs(pngs, end - begin);
        result = Py_BuildValue("iLn", status, (long long)reached, (Py_ssize_t)made.by_image.used);
    }
    give_back(lent, 2 + NUM_EVALUATION_BUFFERS);
    return result;
}

/* assign(ranks, truths, ious, crowds, truth_ignored, thresholds, matched, ignored, partners, ways)
 * -> None; the pairs ascend by rank, then by true id */
static PyObject *py_assign(PyObject *module, PyObject *arguments)
{
    Lent lent[9];
    unsigned int ways;
    (void)module;
    if (!open_call(arguments, lent, 9, "rrrrrrwww", "I:assign", &ways))
        return NULL;
    PyObject *result = NULL;
    if (ways >= 1 && ways <= 64 && whole_items(&lent[0], 8, 0, "ranks") &&
        whole_items(&lent[1], 8, lent[0].count, "truths") &&
        whole_items(&lent[2], 8, lent[0].count, "ious") &&
        whole_items(&lent[3], 1, lent[0].count, "crowds") && whole_items(&lent[4], ways, 0, "ignored") &&
        whole_items(&lent[5], 8, 1, "thresholds") && whole_items(&lent[8], 4, 0, "partners") &&
        whole_items(&lent[6], 2 * ways, lent[8].count, "matched") &&
        whole_items(&lent[7], 2 * ways, lent[8].count, "ignored bits")) {
        Claims claims = {lent[0].view.buf, lent[1].view.buf, lent[2].view.buf, lent[3].view.buf,
                         lent[4].view.buf, lent[0].count,    ways};
        Assignment made = {lent[6].view.buf, lent[7].view.buf, lent[8].view.buf};
        const double *thresholds = lent[5].view.buf;
        size_t num_truths = lent[4].count;
        uint8_t *taken = malloc(num_truths + 1);
        bool sound = lent[5].count <= MAX_THRESHOLDS;
        Py_BEGIN_ALLOW_THREADS;
        sound = sound && claims_are_sound(&claims, lent[8].count, num_truths);
        for (size_t i = 0; taken && sound && i < lent[5].count * ways; i++) {
            memset(taken, 0, num_truths);
            assign_at(&claims, taken, i % ways, (int)(i / ways), thresholds[i / ways], &made);
        }
        Py_END_ALLOW_THREADS;
        result = !taken ? PyErr_NoMemory()
                 : sound ? Py_NewRef(Py_None)
                         : refuse("pairs do not ascend, or are outside the tables");
        free(taken);
    }
    if (!result && !PyErr_Occurred())
        refuse("impossible numbers");
    give_back(lent, 9);
    return result;
}

/* match_runs(true starts, true ids, true areas, true sizes, starts, ids, scores, thresholds,
 * ranges, 7 record columns, pixels, entities, crowds, max_detections, crowds_ignore,
 * void_ignores) -> (status, num_empty) */
static PyObject *py_match_runs(PyObject *module, PyObject *arguments)
{
    Lent lent[16];
    long long pixels;
    unsigned int num_entities, num_crowds, cut;
    int crowds_ignore, void_ignores;
    (void)module;
    if (!open_call(arguments, lent, 16, "rrrrrrrrrwwwwwww", "LIIIpp:match_runs", &pixels,
                   &num_entities, &num_crowds, &cut, &crowds_ignore, &void_ignores))
        return NULL;
    PyObject *result = NULL;
    Rules rules = {.max_detections = cut, .crowds_ignore = crowds_ignore,
                   .void_ignores = void_ignores};
    Records records;
    size_t num_ids = (size_t)num_entities + num_crowds;
    if (whole_items(&lent[0], 4, 1, "true starts") &&
        whole_items(&lent[1], 4, lent[0].count, "true ids") &&
        whole_items(&lent[2], 8, num_ids + 1, "true areas") &&
        whole_items(&lent[3], 8, num_entities, "true sizes") &&
        whole_items(&lent[4], 4, 1, "starts") && whole_items(&lent[5], 4, lent[4].count, "ids") &&
        whole_items(&lent[6], 8, 0, "scores") && lend_rules(lent + 7, &rules) &&
        lend_records(lent + 9, &records, lent[6].count < cut ? lent[6].count : cut)) {
        Evaluator evaluator = {.failed_mask = -1};
        Truth truth = {lent[2].view.buf, lent[3].view.buf, num_entities, num_crowds};
        Block ends = {NULL, 0};
        int64_t num_empty = 0;
        size_t count = lent[6].count, num_runs = lent[4].count;
        const int32_t *starts = lent[4].view.buf, *ids = lent[5].view.buf;
        int status = num_ids > MAX_PIXELS || count > MAX_PIXELS || pixels < 0 ? MAP_DAMAGED : OK;
        Py_BEGIN_ALLOW_THREADS;
        if (!status)
            status = index_runs(&evaluator.map, lent[0].view.buf, lent[1].view.buf, lent[0].count,
                                (uint64_t)pixels, (uint32_t)num_ids);
        if (!status && !runs_are_sound(starts, ids, num_runs, (uint64_t)pixels, MAX_PIXELS))
            status = MAP_DAMAGED;
        if (!status && !runs_by_id(&evaluator.reader, &ends, starts, ids, num_runs,
                                   (uint64_t)pixels, (uint32_t)count))
            status = NO_MEMORY;
        if (!status)
            status = match_sorted_here(&evaluator, ends.at, lent[6].view.buf, count, &truth, &rules,
                                       &records, &num_empty);
        free(ends.at);
        free_evaluator(&evaluator);
        Py_END_ALLOW_THREADS;
        result = Py_BuildValue("iL", status, (long long)num_empty);
    }
    give_back(lent, 16);
    return result;
}

/* Run the three steps of a contingency table; the cells end in `cells`. */
static int count_cells(const MapView *truth, const MapView *prediction, uint32_t num_entities,
                       uint64_t pixels, Piece *cells, size_t *count)
{
    size_t most = (size_t)truth->num_ids > num_entities ? truth->num_ids : num_entities;
    size_t room = truth->num_runs + prediction->num_runs;
    Piece *spare = malloc((room + 1) * sizeof(Piece));
    size_t *places = malloc((most + 3) * sizeof(size_t));
    int status = spare && places ? OK : NO_MEMORY;
    if (!status) {
        size_t pieces = cut_pieces(truth, prediction, num_entities, pixels, cells);
        sort_pieces(cells, spare, pieces, false, places, (size_t)num_entities + 1);
        sort_pieces(spare, cells, pieces, true, places, (size_t)truth->num_ids + 1);
        *count = sum_cells(cells, pieces);
    }
    free(spare);
    free(places);
    return status;
}

/* contingency(true starts, true ids, starts, ids, cells, pixels, true ids, entities)
 * -> (status, cells) */
static PyObject *py_contingency(PyObject *module, PyObject *arguments)
{
    Lent lent[5];
    long long pixels;
    unsigned int num_ids, num_entities;
    (void)module;
    if (!open_call(arguments, lent, 5, "rrrrw", "LII:contingency", &pixels, &num_ids,
                   &num_entities))
        return NULL;
    PyObject *result = NULL;
    if (whole_items(&lent[0], 4, 1, "true starts") &&
        whole_items(&lent[1], 4, lent[0].count, "true ids") &&
        whole_items(&lent[2], 4, 1, "starts") && whole_items(&lent[3], 4, lent[2].count, "ids") &&
        whole_items(&lent[4], sizeof(Piece), lent[0].count + lent[2].count, "cells")) {
        MapView truth = {lent[0].view.buf, lent[1].view.buf, lent[0].count, num_ids};
        MapView prediction = {lent[2].view.buf, lent[3].view.buf, lent[2].count, num_entities};
        size_t count = 0;
        int status = MAP_DAMAGED;
        Py_BEGIN_ALLOW_THREADS;
        if (pixels > 0 && num_ids < MAX_PIXELS && num_entities < MAX_PIXELS &&
            runs_are_sound(truth.starts, truth.ids, truth.num_runs, (uint64_t)pixels, num_ids) &&
            runs_are_sound(prediction.starts, prediction.ids, prediction.num_runs,
                           (uint64_t)pixels, MAX_PIXELS))
            status = count_cells(&truth, &prediction, num_entities, (uint64_t)pixels,
                                 lent[4].view.buf, &count);
        Py_END_ALLOW_THREADS;
        result = Py_BuildValue("in", status, (Py_ssize_t)count);
    }
    give_back(lent, 5);
    return result;
}

/* find_runs(items, starts, item_size) -> number of runs */
static PyObject *py_find_runs(PyObject *module, PyObject *arguments)
{
    Lent lent[2];
    int item_size;
    (void)module;
    if (!open_call(arguments, lent, 2, "rw", "i:find_runs", &item_size))
        return NULL;
    PyObject *result = NULL;
    if (item_size != 1 && item_size != 2 && item_size != 4 && item_size != 8) {
        refuse("items have 1, 2, 4 or 8 bytes");
    } else if (whole_items(&lent[0], (size_t)item_size, 0, "items") &&
               whole_items(&lent[1], 4, lent[0].count + 1, "starts")) {
        size_t num_runs;
        Py_BEGIN_ALLOW_THREADS;
        num_runs = find_runs(lent[0].view.buf, lent[0].count, item_size, lent[1].view.buf);
        Py_END_ALLOW_THREADS;
        result = PyLong_FromSize_t(num_runs);
    }
    give_back(lent, 2);
    return result;
}

/* measure(starts, ids, areas, boxes, height, width) -> status; boxes may be empty */
static PyObject *py_measure(PyObject *module, PyObject *arguments)
{
    Lent lent[4];
    long long height, width;
    (void)module;
    if (!open_call(arguments, lent, 4, "rrww", "LL:measure", &height, &width))
        return NULL;
    PyObject *result = NULL;
    if (whole_items(&lent[0], 4, 1, "starts") && whole_items(&lent[1], 4, lent[0].count, "ids") &&
        whole_items(&lent[2], 8, 1, "areas") &&
        whole_items(&lent[3], 32, lent[3].view.len ? lent[2].count : 0, "boxes")) {
        const int32_t *starts = lent[0].view.buf, *ids = lent[1].view.buf;
        int64_t *areas = lent[2].view.buf, *boxes = lent[3].view.buf;
        size_t num_runs = lent[0].count, num_ids = lent[2].count;
        int status = MAP_DAMAGED;
        Py_BEGIN_ALLOW_THREADS;
        if (height > 0 && width > 0 && height <= MAX_PIXELS / width && num_ids <= MAX_PIXELS &&
            runs_are_sound(starts, ids, num_runs, (uint64_t)(height * width),
                           (uint32_t)(num_ids - 1))) {
            status = OK;
            for (size_t i = 0; i < num_runs; i++) {
                int64_t end = i + 1 < num_runs ? starts[i + 1] : height * width;
                areas[ids[i]] += end - starts[i];
                if (lent[3].count)
                    widen_by_run(boxes + 4 * (size_t)ids[i], starts[i], end, width, false);
            }
            close_boxes(boxes, lent[3].count);
        }
        Py_END_ALLOW_THREADS;
        result = PyLong_FromLong(status);
    }
    give_back(lent, 4);
    return result;
}

/* Draw a map, turn it, and find its runs again; `map` is replaced by the turned one. */
static int transpose_map(MapIndex *map, Block *dense, Block *turned, uint32_t height, uint32_t width)
{
    size_t pixels = (size_t)map->pixels;
    if (!reserve(dense, pixels, 4) || !reserve(turned, pixels, 4))
        return NO_MEMORY;
    uint32_t *items = turned->at;
    draw_runs(map->starts, map->ids, map->num_runs, dense->at);
    transpose(dense->at, items, height, width);
    /* The drawn map is not needed any more: its place takes the starts of the runs. */
    int32_t *starts = dense->at;
    size_t num_runs = 1;
    starts[0] = 0;
    for (size_t i = 1; i < pixels; i++)
        if (items[i] != items[i - 1])
            starts[num_runs++] = (int32_t)i;
    if (!reserve(&map->starts_block, num_runs + 1, 4) || !reserve(&map->ids_block, num_runs + 1, 4))
        return NO_MEMORY;
    map->starts = map->starts_block.at;
    map->ids = map->ids_block.at;
    map->num_runs = num_runs;
    for (size_t i = 0; i < num_runs; i++) {
        map->starts[i] = (uint32_t)starts[i];
        map->ids[i] = items[starts[i]];
    }
    map->starts[num_runs] = (uint32_t)pixels;
    return OK;
}

/* Pack the runs of a map; fills the entry but for its offset and first id. */
static int pack_map(const MapIndex *map, uint8_t *out, size_t out_size, ImageEntry *entry,
                    size_t *size)
{
    size_t room = map->num_runs + (size_t)(map->pixels / 65535) + 1;
    if (room > out_size / 6)
        return NO_MEMORY;
    Packer packer = {out, room, 0, malloc(room * 4)};
    if (!packer.ids)
        return NO_MEMORY;
    bool fits = true;
    for (size_t i = 0; i < map->num_runs; i++)
        fits &= pack_run(&packer, map->starts[i + 1] - map->starts[i], map->ids[i]);
    *size = pack_ids(&packer, entry->num_entities + entry->num_crowds, &entry->id_width);
    entry->num_runs = (uint32_t)packer.num_runs;
    entry->check = checksum(out, *size);
    free(packer.ids);
    return fits ? OK : NO_MEMORY;
}

/* pack_runs(starts, ids, entry, out, transposed) -> (status, bytes); `entry` says height, width
 * and the numbers of ids, and gets the rest. */
static PyObject *py_pack_runs(PyObject *module, PyObject *arguments)
{
    Lent lent[4];
    int transposed;
    (void)module;
    if (!open_call(arguments, lent, 4, "rrww", "p:pack_runs", &transposed))
        return NULL;
    PyObject *result = NULL;
    if (whole_items(&lent[0], 4, 1, "starts") && whole_items(&lent[1], 4, lent[0].count, "ids") &&
        whole_items(&lent[2], sizeof(ImageEntry), 1, "entry")) {
        ImageEntry *entry = lent[2].view.buf;
        MapIndex map = {.num_runs = 0};
        Block dense = {NULL, 0}, turned = {NULL, 0};
        size_t size = 0;
        uint64_t num_ids = (uint64_t)entry->num_entities + entry->num_crowds;
        int status = MAP_DAMAGED;
        Py_BEGIN_ALLOW_THREADS;
        if (num_ids <= MAX_PIXELS && entry->height <= MAX_PIXELS && entry->width <= MAX_PIXELS)
            status = index_runs(&map, lent[0].view.buf, lent[1].view.buf, lent[0].count,
                                entry_pixels(entry), (uint32_t)num_ids);
        if (!status && transposed)
            status = transpose_map(&map, &dense, &turned, entry->height, entry->width);
        if (!status)
            status = pack_map(&map, lent[3].view.buf, (size_t)lent[3].view.len, entry, &size);
        free(dense.at);
        free(turned.at);
        free_index(&map);
        Py_END_ALLOW_THREADS;
        result = Py_BuildValue("in", status, (Py_ssize_t)size);
    }
    give_back(lent, 4);
    return result;
}

/* unpack_runs(packed, entry, starts, ids) -> status */
static PyObject *py_unpack_runs(PyObject *module, PyObject *arguments)
{
    Lent lent[4];
    (void)module;
    if (!open_call(arguments, lent, 4, "rrww", ":unpack_runs"))
        return NULL;
    PyObject *result = NULL;
    if (whole_items(&lent[1], sizeof(ImageEntry), 1, "entry")) {
        const ImageEntry *entry = lent[1].view.buf;
        if (whole_items(&lent[2], 4, entry->num_runs, "starts") &&
            whole_items(&lent[3], 4, entry->num_runs, "ids")) {
            MapIndex map = {.num_runs = 0};
            int status;
            Py_BEGIN_ALLOW_THREADS;
            status = unpack_map(&map, lent[0].view.buf, (size_t)lent[0].view.len, entry);
            if (!status) {
                memcpy(lent[2].view.buf, map.starts, map.num_runs * 4);
                memcpy(lent[3].view.buf, map.ids, map.num_runs * 4);
            }
            free_index(&map);
            Py_END_ALLOW_THREADS;
            result = PyLong_FromLong(status);
        }
    }
    give_back(lent, 4);
    return result;
}

static int compile_images(const Masks *masks, Compilation *made, int64_t begin, int64_t end,
                          int64_t *stopped, int64_t *failed_mask)
{
    Evaluator evaluator = {.failed_mask = -1};
    Gathering gathering = {.num_runs = 0};
    int status = OK;
    bool full = false;
    for (*stopped = begin; *stopped < end; ++*stopped) {
        status = compile_image(&evaluator, &gathering, masks, made, *stopped, &full);
        if (status || full)
            break;
    }
    *failed_mask = evaluator.failed_mask;
    free_gathering(&gathering);
    free_evaluator(&evaluator);
    return status;
}

/* compile_rle(6 buffers of masks, mask_offsets, entries, areas, boxes, out, begin, end, base)
 * -> (status, image, mask, bytes): the images before `image` are compiled */
static PyObject *py_compile_rle(PyObject *module, PyObject *arguments)
{
    Lent lent[11];
    Py_ssize_t begin, end;
    long long base;
    (void)module;
    if (!open_call(arguments, lent, 11, "rrrrrrrwwww", "nnL:compile_rle", &begin, &end, &base))
        return NULL;
    PyObject *result = NULL;
    Masks masks;
    size_t num_masks;
    if (lend_masks(lent, &masks, &num_masks) &&
        whole_items(&lent[7], sizeof(ImageEntry), 0, "entries") &&
        whole_items(&lent[6], 8, lent[7].count + 1, "mask_offsets") &&
        whole_items(&lent[8], 8, 0, "areas") && whole_items(&lent[9], 32, lent[8].count, "boxes")) {
        Compilation made = {.mask_offsets = lent[6].view.buf,
                            .entries = lent[7].view.buf,
                            .areas = lent[8].view.buf,
                            .boxes = lent[9].view.buf,
                            .num_areas = lent[8].count,
                            .out = lent[10].view.buf,
                            .out_size = (size_t)lent[10].view.len,
                            .base = base};
        if (begin < 0 || begin > end || (size_t)end > lent[7].count ||
            !starts_from_zero(made.mask_offsets, lent[7].count, num_masks)) {
            refuse("the range of images is outside the tables, or offsets do not ascend");
        } else {
            int64_t stopped, failed_mask;
            int status;
            Py_BEGIN_ALLOW_THREADS;
            status = compile_images(&masks, &made, begin, end, &stopped, &failed_mask);
            Py_END_ALLOW_THREADS;
            result = Py_BuildValue("iLLn", status, (long long)stopped, (long long)failed_mask,
                                   (Py_ssize_t)made.used);
        }
    }
    give_back(lent, 11);
    return result;
}

/* mask_runs(text, out, kind, pixels) -> (status, runs): pairs of uint32 start and end */
static PyObject *py_mask_runs(PyObject *module, PyObject *arguments)
{
    Lent lent[2];
    int kind;
    long long pixels;
    (void)module;
    if (!open_call(arguments, lent, 2, "rw", "iL:mask_runs", &kind, &pixels))
        return NULL;
    PyObject *result = NULL;
    if (whole_items(&lent[1], sizeof(Run), (size_t)lent[0].view.len / 2 + 2, "out")) {
        MaskReader reader = {{NULL, 0}, {NULL, 0}, {NULL, 0}};
        Mask mask = {NULL, 0, 0};
        int status = RLE_SUM;
        Py_BEGIN_ALLOW_THREADS;
        if (pixels >= 0 && pixels <= MAX_PIXELS)
            status = read_mask(&reader, lent[0].view.buf, (size_t)lent[0].view.len, kind,
                               (uint64_t)pixels, &mask);
        if (!status && mask.num_runs)
            memcpy(lent[1].view.buf, mask.runs, mask.num_runs * sizeof(Run));
        free_reader(&reader);
        Py_END_ALLOW_THREADS;
        result = Py_BuildValue("in", status, (Py_ssize_t)mask.num_runs);
    }
    give_back(lent, 2);
    return result;
}

/* Whether all runs of all masks lie inside the image. */
static bool masks_fit(const int64_t *starts, const int64_t *ends, size_t num_runs, int64_t pixels)
{
    bool fit = true;
    for (size_t i = 0; i < num_runs; i++)
        fit &= starts[i] >= 0 && ends[i] <= pixels;
    return fit;
}

/* draw_masks(starts, ends, offsets, best_first, dense) -> status */
static PyObject *py_draw_masks(PyObject *module, PyObject *arguments)
{
    Lent lent[5];
    (void)module;
    if (!open_call(arguments, lent, 5, "rrrrw", ":draw_masks"))
        return NULL;
    PyObject *result = NULL;
    if (whole_items(&lent[0], 8, 0, "starts") && whole_items(&lent[1], 8, lent[0].count, "ends") &&
        whole_items(&lent[3], 4, 0, "best_first") &&
        whole_items(&lent[2], 8, lent[3].count + 1, "offsets") &&
        whole_items(&lent[4], 4, 1, "dense")) {
        const uint32_t *best_first = lent[3].view.buf;
        size_t num_masks = lent[3].count;
        int status = MAP_DAMAGED;
        Py_BEGIN_ALLOW_THREADS;
        bool sound = starts_from_zero(lent[2].view.buf, num_masks, lent[0].count) &&
                     masks_fit(lent[0].view.buf, lent[1].view.buf, lent[0].count,
                               (int64_t)lent[4].count);
        for (size_t i = 0; i < num_masks; i++)
            sound &= best_first[i] < num_masks;
        if (sound) {
            status = OK;
            draw_masks(lent[0].view.buf, lent[1].view.buf, lent[2].view.buf, best_first, num_masks,
                       lent[4].view.buf);
        }
        Py_END_ALLOW_THREADS;
        result = PyLong_FromLong(status);
    }
    give_back(lent, 5);
    return result;
}

/* sort_scores(scores, order) -> None */
static PyObject *py_sort_scores(PyObject *module, PyObject *arguments)
{
    Lent lent[2];
    (void)module;
    if (!open_call(arguments, lent, 2, "rw", ":sort_scores"))
        return NULL;
    PyObject *result = NULL;
    if (whole_items(&lent[0], 8, 0, "scores") && whole_items(&lent[1], 8, lent[0].count, "order")) {
        bool done;
        Py_BEGIN_ALLOW_THREADS;
        done = sort_scores(lent[0].view.buf, lent[0].count, lent[1].view.buf);
        Py_END_ALLOW_THREADS;
        result = done ? Py_NewRef(Py_None) : PyErr_NoMemory();
    }
    give_back(lent, 2);
    return result;
}

/* accumulate(hits, ignored, ranks, scores, recall_points, precision, score_points, recall, positives,
 * cut, thresholds, stride, offset, recall_stride, recall_offset) -> None */
static PyObject *py_accumulate(PyObject *module, PyObject *arguments)
{
    Lent lent[8];
    long long positives, cut;
    Py_ssize_t stride, offset, recall_stride, recall_offset;
    int num_thresholds;
    (void)module;
    if (!open_call(arguments, lent, 8, "rrrrrwww", "LLinnnn:accumulate", &positives, &cut,
                   &num_thresholds, &stride, &offset, &recall_stride, &recall_offset))
        return NULL;
    PyObject *result = NULL;
    Ranking ranking = {.positives = positives, .cut = cut, .num_thresholds = num_thresholds};
    if (positives < 1 || num_thresholds < 1 || num_thresholds > MAX_THRESHOLDS || stride < 1 ||
        recall_stride < 1 || offset < 0 || offset >= stride || recall_offset < 0 ||
        recall_offset >= recall_stride) {
        refuse("impossible numbers");
    } else if (whole_items(&lent[0], 2, 0, "hits") &&
               whole_items(&lent[1], 2, lent[0].count, "ignored") &&
               whole_items(&lent[2], 8, lent[0].count, "ranks") &&
               whole_items(&lent[3], 8, lent[0].count, "scores") &&
               whole_items(&lent[4], 8, 1, "recall_points") &&
               whole_items(&lent[5], 8, (size_t)num_thresholds * lent[4].count * (size_t)stride,
                           "precision") &&
               whole_items(&lent[6], 8, lent[5].count, "score_points") &&
               whole_items(&lent[7], 8, (size_t)num_thresholds * (size_t)recall_stride, "recall")) {
        Curve curves[MAX_THRESHOLDS];
        bool done;
        ranking.hits = lent[0].view.buf;
        ranking.ignored = lent[1].view.buf;
        ranking.ranks = lent[2].view.buf;
        ranking.scores = lent[3].view.buf;
        ranking.count = lent[0].count;
        ranking.recall_points = lent[4].view.buf;
        ranking.num_points = (int)lent[4].count;
        for (int t = 0; t < num_thresholds; t++) {
            size_t first = (size_t)t * lent[4].count * (size_t)stride + (size_t)offset;
            curves[t] = (Curve){(double *)lent[5].view.buf + first,
                                (double *)lent[6].view.buf + first, (size_t)stride};
        }
        Py_BEGIN_ALLOW_THREADS;
        done = accumulate_cell(&ranking, curves, (double *)lent[7].view.buf + recall_offset,
                               (size_t)recall_stride);
        Py_END_ALLOW_THREADS;
        result = done ? Py_NewRef(Py_None) : PyErr_NoMemory();
    }
    give_back(lent, 8);
    return result;
}

/* read_png(png, out, height, width, depth, colour, pixel_bytes) -> whether it is a plain PNG of that
 * kind, undamaged */
static PyObject *py_read_png(PyObject *module, PyObject *arguments)
{
    Lent lent[2];
    unsigned int height, width;
    PngKind kind;
    (void)module;
    if (!open_call(arguments, lent, 2, "rw", "IIbbb:read_png", &height, &width, &kind.depth,
                   &kind.colour, &kind.pixel))
        return NULL;
    PyObject *result = NULL;
    kind.height = height;
    kind.width = width;
    size_t row = (size_t)width * kind.pixel;
    if (height == 0 || row == 0 || kind.pixel > 8 || row > SIZE_MAX / 8 / height) {
        refuse("impossible numbers");
    } else if (whole_items(&lent[1], 1, height * row, "out")) {
        uint8_t *out = lent[1].view.buf;
        const uint8_t *rows = NULL;
        PngReader *reader;
        Py_BEGIN_ALLOW_THREADS;
        reader = new_png_reader();
        if (reader)
            rows = read_png(reader, lent[0].view.buf, (size_t)lent[0].view.len, &kind);
        for (size_t r = 0; rows && r < height; r++)
            memcpy(out + r * row, rows + r * (row + 1) + 1, row);
        free_png_reader(reader);
        Py_END_ALLOW_THREADS;
        result = PyBool_FromLong(rows != NULL);
    }
    give_back(lent, 2);
    return result;
}

/* ---- precision of ranked predictions whose images count any number of times ---- */

/* A ranking, ready for any weights (see `metrics/ranking.py`).  Hits are those at any threshold;
 * `events` lists, threshold after threshold, which of them are hits there. */
typedef struct {
    const int32_t *base_images, *hit_images, *base_before;
    const int64_t *event_offsets, *odd_offsets;
    const int32_t *events, *odd_before, *odd_images;
    const int8_t *odd_signs;
    size_t num_base, num_hits, num_events, num_odd;
    int num_thresholds;
} WeightedRanking;

/* What one set of weights makes of a ranking. */
typedef struct {
    uint32_t *sums; /* of the first 0, 1, 2, ... of the base */
    uint32_t *own;  /* weight of each hit */
    uint32_t *base; /* sum of the base up to each hit */
} WeightedHits;

static bool all_within(const int32_t *items, size_t count, size_t end)
{
    bool within = true;
    for (size_t i = 0; i < count; i++)
        within &= items[i] >= 0 && (uint32_t)items[i] < end;
    return within;
}

static bool ascends_to(const int64_t *offsets, int num_thresholds, size_t end)
{
    bool sound = offsets[0] == 0 && (uint64_t)offsets[num_thresholds] == end;
    for (int t = 0; t < num_thresholds; t++)
        sound &= offsets[t] <= offsets[t + 1];
    return sound;
}

static bool ranking_is_sound(const WeightedRanking *ranking, size_t num_images)
{
    return all_within(ranking->base_images, ranking->num_base, num_images) &&
           all_within(ranking->hit_images, ranking->num_hits, num_images) &&
           all_within(ranking->base_before, ranking->num_hits, ranking->num_base + 1) &&
           all_within(ranking->events, ranking->num_events, ranking->num_hits) &&
           all_within(ranking->odd_before, ranking->num_events, ranking->num_odd + 1) &&
           all_within(ranking->odd_images, ranking->num_odd, num_images) &&
           ascends_to(ranking->event_offsets, ranking->num_thresholds, ranking->num_events) &&
           ascends_to(ranking->odd_offsets, ranking->num_thresholds, ranking->num_odd);
}

/* Sum the base up to each hit; returns whether the sum fits. */
static bool weigh_hits(const WeightedRanking *ranking, const int32_t *weights, WeightedHits *hits)
{
    uint64_t sum = 0;
    hits->sums[0] = 0;
    for (size_t i = 0; i < ranking->num_base; i++) {
        sum += (uint32_t)weights[ranking->base_images[i]];
        hits->sums[i + 1] = (uint32_t)sum;
    }
    for (size_t i = 0; i < ranking->num_hits; i++) {
        hits->base[i] = hits->sums[ranking->base_before[i]];
        hits->own[i] = (uint32_t)weights[ranking->hit_images[i]];
    }
    return sum <= UINT32_MAX;
}

/* The events at one threshold, on the way down the ranking. */
typedef struct {
    const int32_t *events, *odd_before, *odd_images;
    const int8_t *odd_signs;
    size_t num_events, num_odd, passed; /* `passed` odd ones */
    uint32_t odd, hits;                 /* their sum, and that of the hits */
} Descent;

static Descent descend(const WeightedRanking *ranking, int t)
{
    int64_t event = ranking->event_offsets[t], odd = ranking->odd_offsets[t];
    return (Descent){.events = ranking->events + event,
                     .odd_before = ranking->odd_before + event,
                     .odd_images = ranking->odd_images + odd,
                     .odd_signs = ranking->odd_signs + odd,
                     .num_events = (size_t)(ranking->event_offsets[t + 1] - event),
                     .num_odd = (size_t)(ranking->odd_offsets[t + 1] - odd)};
}

/* What counts up to an event; events are asked for in order. */
INLINED uint32_t seen_at(Descent *way, size_t event, const int32_t *weights,
                         const WeightedHits *at)
{
    size_t end = (size_t)way->odd_before[event];
    end = end < way->num_odd ? end : way->num_odd;
    for (; way->passed < end; way->passed++)
        way->odd += (uint32_t)weights[way->odd_images[way->passed]] *
                    (uint32_t)way->odd_signs[way->passed];
    return at->base[way->events[event]] + way->odd;
}

static double guarded_quotient(uint64_t hits, uint64_t seen)
{
    return (double)hits / ((double)seen + 2.220446049250313e-16); /* COCO's, against 0 / 0 */
}

enum { EVENTS_AT_ONCE = 16 };

/* Fill the curve at one threshold.  Between two recall points the greatest quotient is sought
 * by multiplying crosswise; of equal ones the last, which the guard lowers least.  Events that
 * could not exceed it even if nothing but hits counted among them are passed at once. */
static void weigh_curve(Descent *way, const int32_t *weights, const WeightedHits *at,
                        const int64_t *needed, size_t num_points, double *curve)
{
    uint64_t best_hits = 0, best_seen = 0;
    size_t reached = 0;
    for (size_t begin = 0, end; begin < way->num_events; begin = end) {
        uint32_t hits = way->hits, first = at->own[way->events[begin]];
        end = begin + EVENTS_AT_ONCE < way->num_events ? begin + EVENTS_AT_ONCE : way->num_events;
        for (size_t e = begin; e < end; e++)
            way->hits += at->own[way->events[e]];
        uint64_t seen = seen_at(way, begin, weights, at);
        bool reaches = reached < num_points && needed[reached] <= (int64_t)way->hits;
        if (!reaches && way->hits * best_seen < best_hits * (seen + (way->hits - hits - first)))
            continue;
        for (size_t e = begin; e < end; e++) {
            hits += at->own[way->events[e]];
            seen = seen_at(way, e, weights, at);
            if (reached < num_points && needed[reached] <= (int64_t)hits) {
                if (reached)
                    curve[reached - 1] = guarded_quotient(best_hits, best_seen);
                while (reached < num_points && needed[reached] <= (int64_t)hits)
                    reached++;
            } else if (hits * best_seen < best_hits * seen) {
                continue;
            }
            best_hits = hits;
            best_seen = seen;
        }
    }
    double best = guarded_quotient(best_hits, best_seen);
    for (size_t point = reached; point-- > 0;) {
        best = curve[point] > best ? curve[point] : best;
        curve[point] = best;
    }
}

/* Fill the curves under one set of weights; returns whether its sums fit. */
static bool weigh_draw(const WeightedRanking *ranking, const int32_t *weights, uint32_t *scratch,
                       const int64_t *needed, size_t num_points, double *curves)
{
    uint32_t *own = scratch + ranking->num_base + 1;
    WeightedHits hits = {scratch, own, own + ranking->num_hits};
    if (!weigh_hits(ranking, weights, &hits))
        return false;
    for (int t = 0; t < ranking->num_thresholds; t++) {
        Descent way = descend(ranking, t);
        weigh_curve(&way, weights, &hits, needed, num_points, curves + (size_t)t * num_points);
    }
    return true;
}

/* weigh(base_images, hit_images, base_before, event_offsets, events, odd_before, odd_offsets,
 * odd_images, odd_signs, weights, needed, curves, images, points) -> None; `curves` come zeroed */
static PyObject *py_weigh(PyObject *module, PyObject *arguments)
{
    Lent lent[12];
    Py_ssize_t num_images, num_points;
    (void)module;
    if (!open_call(arguments, lent, 12, "rrrrrrrrrrrw", "nn:weigh", &num_images, &num_points))
        return NULL;
    PyObject *result = NULL;
    if (num_images < 1 || num_points < 1) {
        refuse("impossible numbers");
    } else if (whole_items(&lent[0], 4, 0, "base_images") &&
               whole_items(&lent[1], 4, 0, "hit_images") &&
               whole_items(&lent[2], 4, lent[1].count, "base_before") &&
               whole_items(&lent[3], 8, 2, "event_offsets") &&
               whole_items(&lent[4], 4, 0, "events") &&
               whole_items(&lent[5], 4, lent[4].count, "odd_before") &&
               whole_items(&lent[6], 8, lent[3].count, "odd_offsets") &&
               whole_items(&lent[7], 4, 0, "odd_images") &&
               whole_items(&lent[8], 1, lent[7].count, "odd_signs") &&
               whole_items(&lent[9], 4, 0, "weights") && whole_items(&lent[10], 8, 0, "needed") &&
               whole_items(&lent[11], 8, 0, "curves")) {
        size_t images = (size_t)num_images, num_draws = lent[9].count / images;
        WeightedRanking ranking = {.base_images = lent[0].view.buf,
                                   .hit_images = lent[1].view.buf,
                                   .base_before = lent[2].view.buf,
                                   .event_offsets = lent[3].view.buf,
                                   .events = lent[4].view.buf,
                                   .odd_before = lent[5].view.buf,
                                   .odd_offsets = lent[6].view.buf,
                                   .odd_images = lent[7].view.buf,
                                   .odd_signs = lent[8].view.buf,
                                   .num_base = lent[0].count,
                                   .num_hits = lent[1].count,
                                   .num_events = lent[4].count,
                                   .num_odd = lent[7].count,
                                   .num_thresholds = (int)lent[3].count - 1};
        size_t points = (size_t)num_points, curve_size = (lent[3].count - 1) * points;
        if (lent[3].count > MAX_THRESHOLDS + 1 || !ranking_is_sound(&ranking, images) ||
            lent[10].count / points < num_draws || lent[11].count / curve_size < num_draws) {
            refuse("the ranking contradicts itself, or buffers are too small");
        } else {
            size_t room = ranking.num_base + 1 + 2 * ranking.num_hits;
            uint32_t *scratch = malloc(room * sizeof(uint32_t));
            bool fits = true;
            Py_BEGIN_ALLOW_THREADS;
            for (size_t draw = 0; scratch && fits && draw < num_draws; draw++)
                fits = weigh_draw(&ranking, (const int32_t *)lent[9].view.buf + draw * images,
                                  scratch, (const int64_t *)lent[10].view.buf + draw * points,
                                  points, (double *)lent[11].view.buf + draw * curve_size);
            Py_END_ALLOW_THREADS;
            if (!scratch)
                PyErr_NoMemory();
            else if (!fits)
                refuse("weights sum to more than 32 bits");
            else
                result = Py_NewRef(Py_None);
            free(scratch);
        }
    }
    give_back(lent, 12);
    return result;
}

static PyMethodDef functions[] = {
    {"accumulate", py_accumulate, METH_VARARGS, NULL},
    {"assign", py_assign, METH_VARARGS, NULL},
    {"compile_rle", py_compile_rle, METH_VARARGS, NULL},
    {"contingency", py_contingency, METH_VARARGS, NULL},
    {"draw_masks", py_draw_masks, METH_VARARGS, NULL},
    {"find_runs", py_find_runs, METH_VARARGS, NULL},
    {"mask_runs", py_mask_runs, METH_VARARGS, NULL},
    {"match_png", py_match_png, METH_VARARGS, NULL},
    {"match_rle", py_match_rle, METH_VARARGS, NULL},
    {"match_runs", py_match_runs, METH_VARARGS, NULL},
    {"measure", py_measure, METH_VARARGS, NULL},
    {"pack_runs", py_pack_runs, METH_VARARGS, NULL},
    {"read_png", py_read_png, METH_VARARGS, NULL},
    {"scan_rows", py_scan_rows, METH_VARARGS, NULL},
    {"skip_value", py_skip_value, METH_VARARGS, NULL},
    {"sort_scores", py_sort_scores, METH_VARARGS, NULL},
    {"unpack_runs", py_unpack_runs, METH_VARARGS, NULL},
    {"weigh", py_weigh, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "entitybench._kernel",
    .m_doc = "The compiled hot loops; `entitybench.kernel` wraps them.",
    .m_methods = functions,
};

PyMODINIT_FUNC PyInit__kernel(void)
{
    return PyModuleDef_Init(&definition);
}
