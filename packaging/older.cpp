// Linked into the wheels that are built outside of a manylinux image: what a newer compiler calls and the run times of
// manylinux_2_28 (glibc 2.28, libstdc++ of GCC 8) do not have, said with what they have. The images' own compilers bring
// the same as libstdc++_nonshared.a. Hidden, so that nothing else in a process finds it. auditwheel judges what is left.
#include <new>
#include <sstream>

#define HIDDEN extern "C" __attribute__((visibility("hidden")))

// GLIBCXX_3.4.29
HIDDEN [[noreturn]] void semreg_bad_array_new_length() __asm__("_ZSt28__throw_bad_array_new_lengthv");
void semreg_bad_array_new_length() { throw std::bad_array_new_length(); }

// GLIBCXX_3.4.26: the constructor that takes no mode; older ones have that which takes one
HIDDEN void semreg_ostringstream(void* at) __asm__("_ZNSt7__cxx1119basic_ostringstreamIcSt11char_traitsIcESaIcEEC1Ev");
void semreg_ostringstream(void* at) { ::new (at) std::ostringstream(std::ios_base::out); }

// glibc 2.32: whether a counter may do without atomic instructions; it never does here
extern "C" __attribute__((visibility("hidden"))) char __libc_single_threaded;
char __libc_single_threaded = 0;

// glibc 2.29: without the wrapper that sets errno as SVID says; the numbers are those of the older one
#if defined(__x86_64__)
__asm__(".symver semreg_exp, exp@GLIBC_2.2.5");
#elif defined(__aarch64__)
__asm__(".symver semreg_exp, exp@GLIBC_2.17");
#endif
extern "C" double semreg_exp(double x);
HIDDEN double semreg_new_exp(double x) __asm__("exp");
double semreg_new_exp(double x) { return semreg_exp(x); }
