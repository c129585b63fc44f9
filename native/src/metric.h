// A v4 metric of ITK that asks Python for its value. ITK's part is here: the points, their way through the transforms,
// masks and borders, and the chain rule. Python sees two arrays of points, and answers with a value and its
// derivative with respect to the moving points.
#pragma once

#include "chain.h"
#include "python.h"

#include "itkImage.h"
#include "itkMeanSquaresImageToImageMetricv4.h"
#include "itkMultiThreaderBase.h"

#include <algorithm>
#include <exception>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace semreg
{

constexpr char CAPSULE[] = "semreg_itkv4.metric";
constexpr char EXPIRED[] = "semreg_itkv4.metric (of a call that has ended)";

// What does not depend on the dimension: a Python call during an evaluation may ask where points go.
class PointMapper
{
public:
  virtual ~PointMapper() = default;
  virtual unsigned Dimension() const = 0;
  virtual void Map(const double * points, size_t count, double * mapped) const = 0;
};

// Derives from a concrete metric, of which it overrides all that computes: the itk package has the scales estimators
// (RegistrationParameterScalesFromPhysicalShift and its kin) for concrete metrics only.
template <unsigned D>
class PythonMetric
  : public itk::MeanSquaresImageToImageMetricv4<itk::Image<float, D>, itk::Image<float, D>>
  , public PointMapper
{
public:
  ITK_DISALLOW_COPY_AND_MOVE(PythonMetric);

  using ImageType = itk::Image<float, D>;
  using Self = PythonMetric;
  using Superclass = itk::MeanSquaresImageToImageMetricv4<ImageType, ImageType>;
  using Pointer = itk::SmartPointer<Self>;
  using typename Superclass::DerivativeType;
  using typename Superclass::MeasureType;
  using typename Superclass::VirtualIndexType;
  using typename Superclass::VirtualPointType;
  using Links = Chain<D>;
  using Point = typename Links::Point;

  itkNewMacro(Self);

  const char * GetNameOfClass() const override { return m_Name.c_str(); }

  // Takes its own reference to `target`, and gives up that to an earlier one; the lock is held.
  void SetTarget(PyObject * target, const std::string & name)
  {
    Py_INCREF(target);
    Py_XDECREF(std::exchange(m_Target, target));
    m_Name = name;
  }

  void Initialize() override
  {
    CheckParts();
    Superclass::Initialize();
    m_Prepared = false;
    m_Evaluated = false;
    Place();
    const Locked lock;
    const Owned  fixed(Described(*this->m_FixedImage));
    const Owned  moving(Described(*this->m_MovingImage));
    const Owned  domain(Geometry(*this->GetVirtualImage(), this->GetVirtualRegion()));
    const Owned  points(FixedPoints());
    if (!fixed || !moving || !domain || !points)
    {
      Fail(TakeError());
    }
    const Owned answer(PyObject_CallMethod(
      m_Target, "initialize", "OOOO", fixed.get(), moving.get(), domain.get(), points.get()));
    Check(answer);
    m_Prepared = true;
  }

  MeasureType GetValue() const override
  {
    this->m_Value = Evaluate(nullptr);
    return this->m_Value;
  }

  void GetDerivative(DerivativeType & derivative) const override
  {
    MeasureType value;
    this->GetValueAndDerivative(value, derivative);
  }

  void GetValueAndDerivative(MeasureType & value, DerivativeType & derivative) const override
  {
    CheckParts();
    const auto count = this->GetNumberOfParameters();
    if (derivative.GetSize() != count)
    {
      derivative.SetSize(count);
    }
    derivative.Fill(0);
    value = this->m_Value = Evaluate(&derivative);
  }

  unsigned Dimension() const override { return D; }

  // Points of the fixed image to the moving one: back through the fixed transform, then through the moving one.
  void Map(const double * points, size_t count, double * mapped) const override
  {
    CheckParts();
    const auto * transform = this->GetMovingTransform();
    const auto   back = this->m_FixedTransform->GetInverseTransform();
    if (back.IsNull())
    {
      Fail("expected a fixed transform with an inverse to map points of the fixed image with, got " +
           std::string(this->m_FixedTransform->GetNameOfClass()));
    }
    InParallel(count, [&](size_t first, size_t last, unsigned) {
      for (size_t i = first; i < last; ++i)
      {
        Point point;
        std::copy_n(points + i * D, D, point.GetDataPointer());
        const Point moved = transform->TransformPoint(back->TransformPoint(point));
        std::copy_n(moved.GetDataPointer(), D, mapped + i * D);
      }
    });
  }

protected:
  PythonMetric()
  {
    // gradients of the images are not needed; the base class would compute them at each level
    this->m_UseFixedImageGradientFilter = false;
    this->m_UseMovingImageGradientFilter = false;
  }

  ~PythonMetric() override
  {
    if (m_Target != nullptr && Py_IsInitialized())
    {
      const Locked lock;
      Py_DECREF(m_Target);
    }
  }

private:
  static constexpr size_t BLOCK = 4096;         // points handled by one thread at a time, at least
  static constexpr size_t MOST_BLOCKS = 64;     // each has derivatives of its own, which are added in a fixed order
  static constexpr size_t MOST_NUMBERS = 1 << 23; // of these derivatives together

  [[noreturn]] void Fail(const std::string & text) const { itkExceptionMacro(<< text); }

  // Anything that may have been set to None since: ITK itself would crash.
  void CheckParts() const
  {
    if (this->m_MovingTransform.IsNull() || this->m_FixedTransform.IsNull())
    {
      Fail("expected a fixed and a moving transform, got None: set both");
    }
    if (this->m_MovingInterpolator.IsNull() || this->m_FixedInterpolator.IsNull())
    {
      Fail("expected a fixed and a moving interpolator, got None: leave them as they are");
    }
    CheckField(*this->m_MovingTransform);
    CheckField(*this->m_FixedTransform);
  }

  void CheckField(const typename Links::Transform & transform) const
  {
    if (const auto * composite = dynamic_cast<const typename Links::Composite *>(&transform))
    {
      for (itk::SizeValueType n = 0; n < composite->GetNumberOfTransforms(); ++n)
      {
        CheckField(*composite->GetNthTransformConstPointer(n));
      }
    }
    const auto * field = dynamic_cast<const typename Links::DisplacementField *>(&transform);
    if (field != nullptr && field->GetDisplacementField() == nullptr)
    {
      Fail("expected a displacement field in the transform, got none: call its SetDisplacementField");
    }
  }

  // Python answers with a number or None, or with the text of an error.
  void Check(const Owned & answer) const
  {
    if (!answer)
    {
      Fail(TakeError());
    }
    if (PyUnicode_Check(answer.get()))
    {
      Fail(TextOf(answer.get()));
    }
  }

  // Calls function(first, last, block) for consecutive blocks of `count` items, the same ones for any number of
  // threads; the first exception is thrown again.
  template <typename Function>
  void InParallel(size_t count, const Function & function, size_t most = MOST_BLOCKS) const
  {
    const size_t blocks = Blocks(count, most);
    const auto   threads = this->GetMaximumNumberOfWorkUnits();
    std::mutex                         mutex;
    std::optional<itk::ExceptionObject> error;
    const auto                         keep = [&](const itk::ExceptionObject & caught) {
      const std::lock_guard<std::mutex> guard(mutex);
      error = error ? error : caught;
    };
    const auto run = [&](itk::SizeValueType block) {
      try
      {
        function(count * block / blocks, count * (block + 1) / blocks, static_cast<unsigned>(block));
      }
      catch (const itk::ExceptionObject & caught)
      {
        keep(caught);
      }
      catch (const std::exception & caught)
      {
        keep(itk::ExceptionObject(__FILE__, __LINE__, caught.what(), ITK_LOCATION));
      }
    };
    if (blocks == 1 || threads == 1)
    {
      for (size_t block = 0; block < blocks; ++block)
      {
        run(block);
      }
    }
    else
    {
      const auto threader = itk::MultiThreaderBase::New();
      threader->SetMaximumNumberOfThreads(threads);
      threader->SetNumberOfWorkUnits(threads);
      threader->ParallelizeArray(0, blocks, run, nullptr);
    }
    if (error)
    {
      throw *error;
    }
  }

  static size_t Blocks(size_t count, size_t most)
  {
    return std::max<size_t>(1, std::min({ (count + BLOCK - 1) / BLOCK, most, MOST_BLOCKS }));
  }

  // Lays out the virtual points whose fixed point counts: inside the fixed image and its mask.
  void Place()
  {
    ++m_Generation;
    std::vector<Point>   points;
    std::vector<itk::OffsetValueType> offsets;
    const auto * image = this->GetVirtualImage();
    if (this->m_UseSampledPointSet)
    {
      const auto * set = this->m_VirtualSampledPointSet.GetPointer();
      if (set == nullptr || set->GetNumberOfPoints() == 0)
      {
        Fail("expected sample points, got none: set a sampled point set or a larger sampling percentage");
      }
      const auto * container = set->GetPoints();
      for (auto it = container->Begin(); it != container->End(); ++it)
      {
        Point point;
        point.CastFrom(it.Value());
        VirtualIndexType index;
        if (image->TransformPhysicalPointToIndex(point, index))
        {
          points.push_back(point);
          offsets.push_back(image->ComputeOffset(index));
        }
      }
    }
    else
    {
      const auto region = this->GetVirtualRegion();
      const auto count = region.GetNumberOfPixels();
      points.resize(count);
      offsets.resize(count);
      InParallel(count, [&](size_t first, size_t last, unsigned) {
        for (size_t i = first; i < last; ++i)
        {
          const auto index = image->ComputeIndex(static_cast<itk::OffsetValueType>(i));
          image->TransformIndexToPhysicalPoint(index, points[i]);
          offsets[i] = static_cast<itk::OffsetValueType>(i);
        }
      });
    }
    std::vector<Point> fixed(points.size());
    std::vector<char>  counts(points.size());
    InParallel(points.size(), [&](size_t first, size_t last, unsigned) {
      for (size_t i = first; i < last; ++i)
      {
        fixed[i] = this->m_FixedTransform->TransformPoint(points[i]);
        counts[i] = Counts(fixed[i], *this->m_FixedInterpolator, this->m_FixedImageMask.GetPointer());
      }
    });
    m_Virtual.clear();
    m_Fixed.clear();
    m_Offsets.clear();
    for (size_t i = 0; i < points.size(); ++i)
    {
      if (counts[i])
      {
        m_Virtual.push_back(points[i]);
        m_Fixed.push_back(fixed[i]);
        m_Offsets.push_back(offsets[i]);
      }
    }
    if (m_Virtual.empty())
    {
      Fail("expected sample points inside the fixed image and its mask, got none of " + std::to_string(points.size()) +
           ": check the mask, the virtual domain and the fixed transform");
    }
  }

  template <typename Interpolator, typename Mask>
  static bool Counts(const Point & point, const Interpolator & interpolator, const Mask * mask)
  {
    return interpolator.IsInsideBuffer(point) && (mask == nullptr || mask->IsInsideInWorldSpace(point));
  }

  // (size, spacing, origin, direction row by row), each a tuple with x first, of one region of an image.
  template <typename Image>
  static PyObject * Geometry(const Image & image, const typename Image::RegionType & region)
  {
    typename Image::PointType origin;
    image.TransformIndexToPhysicalPoint(region.GetIndex(), origin);
    std::vector<double> size(D), spacing(D), start(D), direction(D * D);
    for (unsigned d = 0; d < D; ++d)
    {
      size[d] = static_cast<double>(region.GetSize()[d]);
      spacing[d] = image.GetSpacing()[d];
      start[d] = origin[d];
      for (unsigned e = 0; e < D; ++e)
      {
        direction[d * D + e] = image.GetDirection()(d, e);
      }
    }
    const Owned sizes(Numbers(size)), spacings(Numbers(spacing)), origins(Numbers(start)), rows(Numbers(direction));
    if (!sizes || !spacings || !origins || !rows)
    {
      return nullptr;
    }
    return PyTuple_Pack(4, sizes.get(), spacings.get(), origins.get(), rows.get());
  }

  // (voxels as bytes of float32, geometry).
  static PyObject * Described(const ImageType & image)
  {
    const auto & region = image.GetBufferedRegion();
    const auto   count = region.GetNumberOfPixels();
    if (image.GetBufferPointer() == nullptr || count == 0)
    {
      PyErr_SetString(PyExc_ValueError, "expected an image with voxels, got an empty one: update its source first");
      return nullptr;
    }
    float *     data = nullptr;
    const Owned voxels(NewBytes<float>(count, data));
    const Owned geometry(Geometry(image, region));
    if (!voxels || !geometry)
    {
      return nullptr;
    }
    std::copy_n(image.GetBufferPointer(), count, data);
    return PyTuple_Pack(2, voxels.get(), geometry.get());
  }

  static PyObject * Numbers(const std::vector<double> & values)
  {
    PyObject * result = PyTuple_New(static_cast<Py_ssize_t>(values.size()));
    for (size_t i = 0; result != nullptr && i < values.size(); ++i)
    {
      PyTuple_SetItem(result, static_cast<Py_ssize_t>(i), PyFloat_FromDouble(values[i]));
    }
    return result;
  }

  PyObject * FixedPoints() const
  {
    double *   data = nullptr;
    PyObject * bytes = NewBytes<double>(m_Fixed.size() * D, data);
    for (size_t i = 0; bytes != nullptr && i < m_Fixed.size(); ++i)
    {
      std::copy_n(m_Fixed[i].GetDataPointer(), D, data + i * D);
    }
    return bytes;
  }

  double Evaluate(DerivativeType * derivative) const
  {
    if (!m_Prepared)
    {
      Fail("expected Initialize() before a value is asked for: call it after images and transforms are set");
    }
    CheckParts();
    std::vector<Point> moved(m_Virtual.size());
    std::vector<char>  counts(m_Virtual.size());
    // Python may set another transform while it is asked: this one is kept, and counts
    const typename Links::Transform::ConstPointer transform = this->GetMovingTransform();
    const auto                                    generation = m_Generation;
    InParallel(m_Virtual.size(), [&](size_t first, size_t last, unsigned) {
      for (size_t i = first; i < last; ++i)
      {
        moved[i] = transform->TransformPoint(m_Virtual[i]);
        counts[i] = Counts(moved[i], *this->m_MovingInterpolator, this->m_MovingImageMask.GetPointer());
      }
    });
    std::vector<int64_t> rows;
    for (size_t i = 0; i < counts.size(); ++i)
    {
      if (counts[i])
      {
        rows.push_back(static_cast<int64_t>(i));
      }
    }
    this->m_NumberOfValidPoints = rows.size();
    if (rows.empty())
    {
      return NothingCounts();
    }
    std::vector<double> gradient;
    const double        value = Ask(rows, moved, derivative == nullptr ? nullptr : &gradient);
    m_Evaluated = true;
    if (generation != m_Generation)
    {
      Fail("expected the samples to stay while the metric is evaluated, got a call of Initialize(): make it before");
    }
    if (derivative != nullptr)
    {
      if (derivative->GetSize() != transform->GetNumberOfParameters())
      {
        Fail("expected the transform to keep its " + std::to_string(derivative->GetSize()) +
             " parameters while the metric is evaluated, got " + std::to_string(transform->GetNumberOfParameters()));
      }
      Pull(*transform, rows, gradient, *derivative);
    }
    return value;
  }

  // ITK's convention: no overlap is as bad as it gets. At the start it is a mistake in what was given.
  double NothingCounts() const
  {
    if (!m_Evaluated)
    {
      Fail("expected sample points that fall into the moving image and its mask, got none of " +
           std::to_string(m_Virtual.size()) + ": check the initial transform, it maps fixed points to the moving image");
    }
    itkWarningMacro("no sample point falls into the moving image and its mask: the value is the largest number");
    return itk::NumericTraits<MeasureType>::max();
  }

  double Ask(const std::vector<int64_t> & rows, const std::vector<Point> & moved, std::vector<double> * gradient) const
  {
    const Locked lock;
    int64_t *    chosen = nullptr;
    double *     points = nullptr;
    double *     pull = nullptr;
    const Owned  which(NewBytes<int64_t>(rows.size(), chosen));
    const Owned  where(NewBytes<double>(rows.size() * D, points));
    const Owned  slope(gradient == nullptr ? Py_NewRef(Py_None) : NewBytes<double>(rows.size() * D, pull));
    const Owned  self(PyCapsule_New(const_cast<PointMapper *>(static_cast<const PointMapper *>(this)), CAPSULE, nullptr));
    if (!which || !where || !slope || !self)
    {
      Fail(TakeError());
    }
    std::copy(rows.begin(), rows.end(), chosen);
    for (size_t i = 0; i < rows.size(); ++i)
    {
      std::copy_n(moved[rows[i]].GetDataPointer(), D, points + i * D);
    }
    const Owned answer(
      PyObject_CallMethod(m_Target, "evaluate", "OOOO", self.get(), which.get(), where.get(), slope.get()));
    PyCapsule_SetName(self.get(), EXPIRED);
    Check(answer);
    const double value = PyFloat_AsDouble(answer.get());
    if (PyErr_Occurred() != nullptr)
    {
      Fail(TakeError());
    }
    if (gradient != nullptr)
    {
      if (static_cast<size_t>(PyByteArray_Size(slope.get())) != rows.size() * D * sizeof(double))
      {
        Fail("expected a derivative of its size from the metric, got another size");
      }
      const auto * data = reinterpret_cast<const double *>(PyByteArray_AsString(slope.get()));
      gradient->assign(data, data + rows.size() * D);
    }
    return value;
  }

  // The optimisers of v4 add what they are given: it is the direction of descent.
  void Pull(const typename Links::Transform & transform,
            const std::vector<int64_t> &      rows,
            const std::vector<double> &       gradient,
            DerivativeType &                  derivative) const
  {
    if (transform.GetTransformCategory() == Links::Transform::TransformCategoryEnum::DisplacementField)
    {
      PullLocal(transform, rows, gradient, derivative);
      return;
    }
    const size_t count = derivative.GetSize();
    const size_t most = std::max<size_t>(1, MOST_NUMBERS / std::max<size_t>(1, count));
    std::vector<std::vector<double>> sums(Blocks(rows.size(), most), std::vector<double>(count, 0.0));
    InParallel(
      rows.size(),
      [&](size_t first, size_t last, unsigned block) {
        typename Links::Scratch scratch;
        scratch.jacobian.SetSize(D, 0);
        for (size_t i = first; i < last; ++i)
        {
          typename Links::Covector descent;
          for (unsigned d = 0; d < D; ++d)
          {
            descent[d] = -gradient[i * D + d];
          }
          Links::Add(transform, m_Virtual[rows[i]], descent, sums[block].data(), scratch);
        }
      },
      most);
    for (const auto & sum : sums)
    {
      for (size_t p = 0; p < count; ++p)
      {
        derivative[p] += sum[p];
      }
    }
  }

  void PullLocal(const typename Links::Transform & transform,
                 const std::vector<int64_t> &      rows,
                 const std::vector<double> &       gradient,
                 DerivativeType &                  derivative) const
  {
    const auto parts = transform.GetNumberOfLocalParameters() / D;
    if (parts != 1)
    {
      Fail("expected one displacement field to optimise, got " + std::to_string(parts) +
           ": switch the optimisation of the others off");
    }
    std::vector<double> local(gradient.size(), 0.0);
    InParallel(rows.size(), [&](size_t first, size_t last, unsigned) {
      typename Links::Scratch scratch;
      for (size_t i = first; i < last; ++i)
      {
        typename Links::Covector descent;
        for (unsigned d = 0; d < D; ++d)
        {
          descent[d] = -gradient[i * D + d];
        }
        Links::Add(transform, m_Virtual[rows[i]], descent, local.data() + i * D, scratch);
      }
    });
    for (size_t i = 0; i < rows.size(); ++i) // several samples may lie at one node
    {
      const auto offset = static_cast<size_t>(m_Offsets[rows[i]]) * D;
      if (offset + D > derivative.GetSize())
      {
        Fail("expected a displacement field on the virtual domain, got a smaller one: call Initialize() after it is set");
      }
      for (unsigned d = 0; d < D; ++d)
      {
        derivative[offset + d] += local[i * D + d];
      }
    }
  }

  PyObject *                        m_Target = nullptr;
  std::string                       m_Name;
  bool                              m_Prepared = false;
  mutable bool                      m_Evaluated = false;
  unsigned long                     m_Generation = 0;
  std::vector<Point>                m_Virtual;
  std::vector<Point>                m_Fixed;
  std::vector<itk::OffsetValueType> m_Offsets;
};

} // namespace semreg
