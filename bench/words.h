/* Text that no two calls share, of 2,048 words of six letters; the lower ones are the more common. */
static void words(char *to, size_t size) {
    static unsigned long long seed = 88172645463325252ULL;
    for (size_t i = 0; i < size; i++) {
        static unsigned word;
        if (i % 7 == 6) { to[i] = ' '; continue; }
        if (i % 7 == 0) { /* xorshift; the lower of two numbers */
            seed ^= seed << 13, seed ^= seed >> 7, seed ^= seed << 17;
            unsigned a = seed & 2047, b = (seed >> 20) & 2047;
            word = (a < b ? a : b) * 9973;
        }
        to[i] = i % 7 % 2 ? "aeiou"[word % 5] : "bcdfghklmnprstvz"[word % 16];
        word = word / 3 + 7;
    }
}
