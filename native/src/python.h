// What the metric needs of Python: the interpreter's lock, owned references, calls that answer with a number.
#pragma once

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <string>

namespace semreg
{

class Locked // holds the interpreter's lock
{
public:
  Locked()
    : m_State(PyGILState_Ensure())
  {}
  ~Locked() { PyGILState_Release(m_State); }
  Locked(const Locked &) = delete;
  Locked & operator=(const Locked &) = delete;

private:
  PyGILState_STATE m_State;
};

class Owned // a reference that is given up at the end of its scope
{
public:
  explicit Owned(PyObject * object)
    : m_Object(object)
  {}
  ~Owned() { Py_XDECREF(m_Object); }
  Owned(const Owned &) = delete;
  Owned & operator=(const Owned &) = delete;
  PyObject * get() const { return m_Object; }
  explicit operator bool() const { return m_Object != nullptr; }

private:
  PyObject * m_Object;
};

inline std::string
TextOf(PyObject * text)
{
  Py_ssize_t   size = 0;
  const char * characters = PyUnicode_AsUTF8AndSize(text, &size);
  return characters == nullptr ? std::string() : std::string(characters, static_cast<size_t>(size));
}

// The Python error that is set, as text; clears it.
inline std::string
TakeError()
{
  PyObject *type = nullptr, *value = nullptr, *trace = nullptr;
  PyErr_Fetch(&type, &value, &trace);
  PyErr_NormalizeException(&type, &value, &trace);
  const Owned text(value == nullptr ? nullptr : PyObject_Repr(value));
  std::string result = text ? TextOf(text.get()) : std::string("an error without a message");
  Py_XDECREF(type);
  Py_XDECREF(value);
  Py_XDECREF(trace);
  PyErr_Clear();
  return result;
}

// `count` numbers in memory that Python owns, so that nothing dangles if Python keeps it; null and an error if full.
template <typename T>
PyObject *
NewBytes(size_t count, T *& data)
{
  PyObject * bytes = PyByteArray_FromStringAndSize(nullptr, static_cast<Py_ssize_t>(count * sizeof(T)));
  data = bytes == nullptr ? nullptr : reinterpret_cast<T *>(PyByteArray_AsString(bytes));
  return bytes;
}

} // namespace semreg
