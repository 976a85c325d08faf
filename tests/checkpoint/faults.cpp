// Stands between a program and the C library (LD_PRELOAD): every call that changes files below the working directory can
// be counted, and one of them made to fail or to kill the process. Disarmed until `arm` is called.
#include <cerrno>
#include <csignal>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <dlfcn.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

namespace {
enum When { BEFORE, MID, AFTER };
bool armed = false;
char folder[4096], wanted_op[32], wanted_name[256];
long wanted_count = 0, seen = 0;
int when = BEFORE, error_number = 0, trace = -1;

void path_of(int descriptor, char* out) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    const ssize_t n = readlink(link, out, 4095);
    out[n > 0 ? n : 0] = 0;
}

void path_at(int at, const char* path, char* out) {
    if (path[0] == '/') {
        snprintf(out, 4096, "%s", path);
    } else if (at == AT_FDCWD) {
        snprintf(out, 4096, "%.3000s/%.1000s", folder, path);
    } else {
        char base[4096];
        path_of(at, base);
        snprintf(out, 4096, "%.3000s/%.1000s", base, path);
    }
}

// Whether this call is the chosen one; the call is written to the trace, numbers of processes in names as N.
bool chosen(const char* op, const char* path) {
    const size_t n = strlen(folder);
    if (strncmp(path, folder, n) != 0 || (path[n] != '/' && path[n] != 0)) return false;
    const char* name = path[n] ? path + n + 1 : ".";
    if (trace >= 0) {
        char line[512];
        int k = snprintf(line, sizeof line, "%s ", op);
        for (const char* c = name; *c && k < 500; c++) {
            const bool digit = *c >= '0' && *c <= '9', of_number = line[k - 1] == '.' || line[k - 1] == '#' || line[k - 1] == 'N';
            if (!digit || !of_number)
                line[k++] = *c == ' ' ? '_' : *c;
            else if (line[k - 1] != 'N')
                line[k++] = 'N';
        }
        line[k++] = '\n';
        syscall(SYS_write, trace, line, k);
    }
    if (wanted_count == 0 || strcmp(op, wanted_op) != 0 || strstr(name, wanted_name) == nullptr) return false;
    return __atomic_add_fetch(&seen, 1, __ATOMIC_SEQ_CST) == wanted_count;
}

long failed() {
    if (error_number == 0) kill(getpid(), SIGKILL);
    errno = error_number;
    return -1;
}

template <class F> F real(const char* name) { return reinterpret_cast<F>(dlsym(RTLD_NEXT, name)); }

template <class Call> long guarded(const char* op, const char* path, Call call) {
    if (!armed || !chosen(op, path)) return call();
    if (when == AFTER) call();
    return failed();
}

template <class Call> long guarded_write(const char* op, int descriptor, size_t size, Call call) {
    char path[4096];
    if (!armed) return call(size);
    path_of(descriptor, path);
    if (!chosen(op, path)) return call(size);
    if (when != BEFORE) call(when == MID ? size / 2 : size);
    return failed();
}

template <class Call> long guarded_descriptor(const char* op, int descriptor, Call call) {
    char path[4096];
    if (!armed) return call();
    path_of(descriptor, path);
    return guarded(op, path, call);
}

template <class Call> long guarded_at(const char* op, int at, const char* name, Call call) {
    char path[4096];
    if (!armed) return call();
    path_at(at, name, path);
    return guarded(op, path, call);
}
}  // namespace

extern "C" {
void arm(const char* here, const char* op, const char* name, long count, int moment, int number, int trace_to) {
    snprintf(folder, sizeof folder, "%s", here);
    snprintf(wanted_op, sizeof wanted_op, "%s", op);
    snprintf(wanted_name, sizeof wanted_name, "%s", name);
    wanted_count = count, when = moment, error_number = number, trace = trace_to, seen = 0, armed = true;
}

ssize_t write(int d, const void* data, size_t size) {
    static const auto f = real<ssize_t (*)(int, const void*, size_t)>("write");
    return guarded_write("write", d, size, [&](size_t n) { return f(d, data, n); });
}
ssize_t pwrite64(int d, const void* data, size_t size, off64_t offset) {
    static const auto f = real<ssize_t (*)(int, const void*, size_t, off64_t)>("pwrite64");
    return guarded_write("pwrite", d, size, [&](size_t n) { return f(d, data, n, offset); });
}
ssize_t pwrite(int d, const void* data, size_t size, off_t offset) { return pwrite64(d, data, size, offset); }

int fsync(int d) {
    static const auto f = real<int (*)(int)>("fsync");
    return guarded_descriptor("fsync", d, [&] { return f(d); });
}
int fdatasync(int d) {
    static const auto f = real<int (*)(int)>("fdatasync");
    return guarded_descriptor("fdatasync", d, [&] { return f(d); });
}
int ftruncate64(int d, off64_t size) {
    static const auto f = real<int (*)(int, off64_t)>("ftruncate64");
    return guarded_descriptor("ftruncate", d, [&] { return f(d, size); });
}
int ftruncate(int d, off_t size) { return ftruncate64(d, size); }
int posix_fallocate64(int d, off64_t offset, off64_t size) {
    static const auto f = real<int (*)(int, off64_t, off64_t)>("posix_fallocate64");
    const long result = guarded_descriptor("fallocate", d, [&] { return f(d, offset, size); });
    return result < 0 ? error_number : result;  // it returns the error
}
int posix_fallocate(int d, off_t offset, off_t size) { return posix_fallocate64(d, offset, size); }

int renameat(int a, const char* from, int b, const char* to) {
    static const auto f = real<int (*)(int, const char*, int, const char*)>("renameat");
    return guarded_at("replace", b, to, [&] { return f(a, from, b, to); });
}
int rename(const char* from, const char* to) { return renameat(AT_FDCWD, from, AT_FDCWD, to); }
int linkat(int a, const char* from, int b, const char* to, int flags) {
    static const auto f = real<int (*)(int, const char*, int, const char*, int)>("linkat");
    return guarded_at("link", b, to, [&] { return f(a, from, b, to, flags); });
}
int link(const char* from, const char* to) { return linkat(AT_FDCWD, from, AT_FDCWD, to, 0); }
int unlinkat(int at, const char* path, int flags) {
    static const auto f = real<int (*)(int, const char*, int)>("unlinkat");
    return guarded_at("unlink", at, path, [&] { return f(at, path, flags); });
}
int unlink(const char* path) { return unlinkat(AT_FDCWD, path, 0); }
int rmdir(const char* path) { return unlinkat(AT_FDCWD, path, AT_REMOVEDIR); }
int mkdirat(int at, const char* path, mode_t mode) {
    static const auto f = real<int (*)(int, const char*, mode_t)>("mkdirat");
    return guarded_at("mkdir", at, path, [&] { return f(at, path, mode); });
}
int mkdir(const char* path, mode_t mode) { return mkdirat(AT_FDCWD, path, mode); }

static int opened(int at, const char* path, int flags, mode_t mode) {
    static const auto f = real<int (*)(int, const char*, int, ...)>("openat64");
    if ((flags & (O_WRONLY | O_RDWR | O_CREAT)) == 0) return f(at, path, flags, mode);
    return guarded_at("open", at, path, [&] { return f(at, path, flags, mode); });
}
#include "../opening.h"
}
