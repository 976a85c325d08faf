// For libraries that stand between a program and the C library: the four calls that open a file, handed to
// `int opened(int at, const char* path, int flags, mode_t mode)`, which is defined before. Inside extern "C".
#define MODE(last)                                                                                                     \
    va_list arguments;                                                                                                 \
    va_start(arguments, last);                                                                                         \
    const mode_t mode = va_arg(arguments, mode_t);                                                                     \
    va_end(arguments)

int open64(const char* path, int flags, ...) {
    MODE(flags);
    return opened(AT_FDCWD, path, flags, mode);
}
int open(const char* path, int flags, ...) {
    MODE(flags);
    return opened(AT_FDCWD, path, flags, mode);
}
int openat64(int at, const char* path, int flags, ...) {
    MODE(flags);
    return opened(at, path, flags, mode);
}
int openat(int at, const char* path, int flags, ...) {
    MODE(flags);
    return opened(at, path, flags, mode);
}
