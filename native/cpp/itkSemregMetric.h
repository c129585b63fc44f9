// semreg's metric on features as a v4 metric of ITK in C++: Python runs inside of the program and is asked for the value
// and its derivative. ITK's part is native/src/metric.h, as for the package itk; here are the interpreter and the settings.
#pragma once

#include "../src/metric.h"

#include <cstdlib>
#include <mutex>
#include <string>

namespace semreg
{

// The python whose packages are used: SEMREG_PYTHON of the environment, else what CMake found, else the default one.
inline std::string
PythonToUse()
{
  const char * chosen = std::getenv("SEMREG_PYTHON");
  if (chosen != nullptr && *chosen != '\0')
  {
    return chosen;
  }
#ifdef SEMREG_PYTHON
  return SEMREG_PYTHON;
#else
  return "";
#endif
}

// Starts Python once a process, unless the program has done so, and lets go of its lock. It is never ended: libraries
// such as torch do not survive a second start.
inline void
StartPython()
{
  static std::mutex                 mutex;
  const std::lock_guard<std::mutex> guard(mutex);
  if (Py_IsInitialized())
  {
    return;
  }
  PyConfig config;
  PyConfig_InitPythonConfig(&config);
  config.install_signal_handlers = 0; // Ctrl-C stays the program's
  config.parse_argv = 0;
  const std::string python = PythonToUse();
  PyStatus          status = PyStatus_Ok();
  if (!python.empty()) // Python finds the packages of a virtual environment by where its python lies
  {
    status = PyConfig_SetBytesString(&config, &config.executable, python.c_str());
  }
  if (!PyStatus_Exception(status))
  {
    status = Py_InitializeFromConfig(&config);
  }
  PyConfig_Clear(&config);
  if (PyStatus_Exception(status))
  {
    itkGenericExceptionMacro(<< "expected Python to start for semreg, got: "
                             << (status.err_msg == nullptr ? "no reason" : status.err_msg)
                             << ": set SEMREG_PYTHON to the python of an environment with semreg");
  }
  PyEval_SaveThread();
}

} // namespace semreg

namespace itk
{

// A drop-in for ITK's v4 metrics of float images in 2-D and 3-D. Lower is better.
template <unsigned D>
class SemregMetric : public semreg::PythonMetric<D>
{
public:
  ITK_DISALLOW_COPY_AND_MOVE(SemregMetric);

  using Self = SemregMetric;
  using Superclass = semreg::PythonMetric<D>;
  using Pointer = SmartPointer<Self>;
  using ConstPointer = SmartPointer<const Self>;

  itkNewMacro(Self);

  const char * GetNameOfClass() const override { return "SemregMetric"; }

  // Models and how features are compared, as TOML with the names of semreg.toml: [[models]], [features], seed,
  // normalise_losses. Takes effect with the next Initialize().
  void SetSettings(const std::string & toml)
  {
    m_Settings = toml;
    m_Made = false;
    this->Modified();
  }
  const std::string & GetSettings() const { return m_Settings; }

  // cpu, cuda, cuda:n, mps or auto.
  void SetDevice(const std::string & device)
  {
    m_Device = device;
    m_Made = false;
    this->Modified();
  }
  const std::string & GetDevice() const { return m_Device; }

  void Initialize() override
  {
    if (!m_Made)
    {
      MakeTarget();
    }
    Superclass::Initialize();
  }

protected:
  SemregMetric() = default;
  ~SemregMetric() override = default;

private:
  void MakeTarget()
  {
    semreg::StartPython();
    const semreg::Locked lock;
    const semreg::Owned  module(PyImport_ImportModule("semreg.itk.embedded"));
    if (!module)
    {
      const std::string found = semreg::TakeError();
      const std::string python = semreg::PythonToUse();
      itkExceptionMacro(<< "expected the package semreg for Python " << PY_MAJOR_VERSION << '.' << PY_MINOR_VERSION
                        << " in the environment of " << (python.empty() ? "the default python" : python) << ", got: "
                        << found << ": set SEMREG_PYTHON to the python of an environment that has it");
    }
    const semreg::Owned target(
      PyObject_CallMethod(module.get(), "make_target", "ss", m_Settings.c_str(), m_Device.c_str()));
    if (!target)
    {
      itkExceptionMacro(<< semreg::TakeError());
    }
    this->SetTarget(target.get(), "SemregMetric");
    m_Made = true;
  }

  std::string m_Settings = "[[models]]\nmodel = \"mind\"\ndistance = [\"l2\"]\n";
  std::string m_Device = "cpu";
  bool        m_Made = false;
};

} // namespace itk
