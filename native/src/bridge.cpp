// The Python module: makes metrics and hands them to the itk package through SWIG's own run time.
#include "metric.h"

#include "swigpyrun.h" // made by swig -python -external-runtime when this is built

#include <stdexcept>

namespace
{

template <unsigned D>
PyObject *
Make(PyObject * target, const char * name)
{
  const std::string type_name = "_p_itkMeanSquaresImageToImageMetricv4IF" + std::to_string(D) + "IF" + std::to_string(D);
  swig_type_info *  type = SWIG_TypeQuery(type_name.c_str());
  if (type == nullptr)
  {
    PyErr_SetString(PyExc_ImportError, "expected the package itk to know v4 metrics of float images: load itk first");
    return nullptr;
  }
  try
  {
    auto metric = semreg::PythonMetric<D>::New();
    metric->SetTarget(target, name);
    metric->Register(); // the reference that the SWIG object owns, and gives up when it goes
    typename semreg::PythonMetric<D>::Superclass * base = metric.GetPointer();
    PyObject * result = SWIG_NewPointerObj(static_cast<void *>(base), type, SWIG_POINTER_OWN);
    if (result == nullptr)
    {
      metric->UnRegister();
    }
    return result;
  }
  catch (const std::exception & error)
  {
    PyErr_SetString(PyExc_RuntimeError, error.what());
    return nullptr;
  }
}

PyObject *
MakeMetric(PyObject *, PyObject * arguments)
{
  unsigned     dimension = 0;
  PyObject *   target = nullptr;
  const char * name = nullptr;
  if (!PyArg_ParseTuple(arguments, "IOs", &dimension, &target, &name))
  {
    return nullptr;
  }
  if (dimension == 2)
  {
    return Make<2>(target, name);
  }
  if (dimension == 3)
  {
    return Make<3>(target, name);
  }
  PyErr_Format(PyExc_ValueError, "expected a metric of 2 or 3 dimensions, got %u", dimension);
  return nullptr;
}

PyObject *
MapPoints(PyObject *, PyObject * arguments)
{
  PyObject *   capsule = nullptr;
  const char * bytes = nullptr;
  Py_ssize_t   size = 0;
  if (!PyArg_ParseTuple(arguments, "Oy#", &capsule, &bytes, &size))
  {
    return nullptr;
  }
  if (!PyCapsule_IsValid(capsule, semreg::CAPSULE))
  {
    PyErr_SetString(PyExc_RuntimeError, "expected to be asked during an evaluation: the call it belongs to has ended");
    return nullptr;
  }
  const auto * mapper = static_cast<const semreg::PointMapper *>(PyCapsule_GetPointer(capsule, semreg::CAPSULE));
  const size_t step = mapper->Dimension() * sizeof(double);
  if (static_cast<size_t>(size) % step != 0)
  {
    PyErr_Format(PyExc_ValueError, "expected points of %u float64 each, got %zd bytes", mapper->Dimension(), size);
    return nullptr;
  }
  double *   mapped = nullptr;
  PyObject * result = semreg::NewBytes<double>(static_cast<size_t>(size) / sizeof(double), mapped);
  if (result == nullptr)
  {
    return nullptr;
  }
  try
  {
    mapper->Map(reinterpret_cast<const double *>(bytes), static_cast<size_t>(size) / step, mapped);
  }
  catch (const std::exception & error)
  {
    Py_DECREF(result);
    PyErr_SetString(PyExc_RuntimeError, error.what());
    return nullptr;
  }
  return result;
}

PyMethodDef METHODS[] = {
  { "make_metric", MakeMetric, METH_VARARGS,
    "make_metric(dimension, target, name): a v4 metric that asks target for its values." },
  { "map_points", MapPoints, METH_VARARGS,
    "map_points(handle, points): points of the fixed image (bytes of float64, x first) to the moving one." },
  { nullptr, nullptr, 0, nullptr },
};

PyModuleDef MODULE = { PyModuleDef_HEAD_INIT, "_bridge", "v4 metrics of ITK written in Python.", -1, METHODS,
                       nullptr,               nullptr,   nullptr,                                nullptr };

} // namespace

PyMODINIT_FUNC
PyInit__bridge()
{
  PyObject * module = PyModule_Create(&MODULE);
  if (module != nullptr && PyModule_AddStringConstant(module, "ITK_VERSION", ITK_VERSION_STRING) < 0)
  {
    Py_DECREF(module);
    return nullptr;
  }
  return module;
}

// ITK's headers call these five; the wheels do not export them.
void
vnl_error_matrix_dimension(const char * name, int, int, int, int)
{
  throw std::runtime_error(name);
}
void
vnl_error_vector_dimension(const char * name, int, int)
{
  throw std::runtime_error(name);
}
void
vnl_error_vector_index(const char * name, int)
{
  throw std::runtime_error(name);
}
void
vnl_error_matrix_row_index(const char * name, int)
{
  throw std::runtime_error(name);
}
void
vnl_error_matrix_col_index(const char * name, int)
{
  throw std::runtime_error(name);
}
