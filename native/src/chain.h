// The chain rule through ITK's transforms: from d(value)/d(moving point) to d(value)/d(parameters).
#pragma once

#include "itkBSplineBaseTransform.h"
#include "itkCompositeTransform.h"
#include "itkDisplacementFieldTransform.h"
#include "itkTransform.h"

#include <type_traits>
#include <vector>

namespace semreg
{

template <unsigned D>
class Chain
{
public:
  using Transform = itk::Transform<double, D, D>;
  using Composite = itk::CompositeTransform<double, D>;
  using Spline = itk::BSplineBaseTransform<double, D, 3>;
  using DisplacementField = itk::DisplacementFieldTransform<double, D>;
  using Point = typename Transform::InputPointType;
  using Covector = itk::Vector<double, D>;

  // Buffers of one thread, kept from point to point.
  struct Scratch
  {
    typename Transform::JacobianType jacobian;
    typename Transform::JacobianType cache;
  };

  // Adds J(point)^T gradient to `out`, which holds the derivatives of all parameters of `transform`, or, where the
  // transform has local support, those of the node at `point` alone (D numbers).
  static void
  Add(const Transform & transform, const Point & point, const Covector & gradient, double * out, Scratch & scratch)
  {
    if (const auto * composite = dynamic_cast<const Composite *>(&transform))
    {
      AddComposite(*composite, point, gradient, out, scratch);
    }
    else if (const auto * spline = dynamic_cast<const Spline *>(&transform))
    {
      AddSpline(*spline, point, gradient, out);
    }
    else
    {
      transform.ComputeJacobianWithRespectToParametersCachedTemporaries(point, scratch.jacobian, scratch.cache);
      const auto columns = scratch.jacobian.cols();
      for (unsigned d = 0; d < D; ++d)
      {
        const double * row = scratch.jacobian[d];
        for (unsigned p = 0; p < columns; ++p)
        {
          out[p] += gradient[d] * row[p];
        }
      }
    }
  }

private:
  // Transforms of the queue are applied from the last to the first; the parameters come in the same order.
  static void
  AddComposite(const Composite & composite, const Point & point, Covector gradient, double * out, Scratch & scratch)
  {
    const auto           count = composite.GetNumberOfTransforms();
    std::vector<Point>   inputs(count);
    std::vector<double *> outputs(count, nullptr);
    Point                current = point;
    itk::SizeValueType   offset = 0;
    itk::SizeValueType   last = count; // of those optimised, the one that is applied first
    for (auto n = count; n-- > 0;)
    {
      const auto * transform = composite.GetNthTransformConstPointer(n);
      inputs[n] = current;
      current = transform->TransformPoint(current);
      if (composite.GetNthTransformToOptimize(n))
      {
        outputs[n] = out + offset;
        offset += transform->GetNumberOfParameters();
        last = last == count ? n : last;
      }
    }
    for (itk::SizeValueType n = 0; n < count && last != count && n <= last; ++n)
    {
      const auto * transform = composite.GetNthTransformConstPointer(n);
      if (outputs[n] != nullptr)
      {
        Add(*transform, inputs[n], gradient, outputs[n], scratch);
      }
      if (n < last)
      {
        gradient = Pulled(*transform, inputs[n], gradient);
      }
    }
  }

  // 4^D parameters a dimension take part in a cubic spline, of thousands.
  static void
  AddSpline(const Spline & spline, const Point & point, const Covector & gradient, double * out)
  {
    typename Spline::WeightsType             weights;
    typename Spline::ParameterIndexArrayType indices;
    Point                                    moved;
    bool                                     inside = false;
    constexpr unsigned                       taking_part = D == 2 ? 16 : 64; // 4^D
    if constexpr (std::is_same_v<typename Spline::ParameterIndexArrayType, itk::Array<unsigned long>>)
    {
      weights.SetSize(taking_part); // before ITK 5.3 the arrays have no size of their own
      indices.SetSize(taking_part);
    }
    spline.TransformPoint(point, moved, weights, indices, inside);
    if (!inside)
    {
      return;
    }
    const auto stride = spline.GetNumberOfParametersPerDimension();
    for (unsigned d = 0; d < D; ++d)
    {
      double * part = out + d * stride;
      for (unsigned k = 0; k < taking_part; ++k)
      {
        part[indices[k]] += gradient[d] * weights[k];
      }
    }
  }

  // The gradient with respect to the transform's input.
  static Covector
  Pulled(const Transform & transform, const Point & point, const Covector & gradient)
  {
    Covector result;
    if (const auto * composite = dynamic_cast<const Composite *>(&transform)) // nor has it one of composites
    {
      std::vector<Point> inputs;
      Point              current = point;
      for (auto n = composite->GetNumberOfTransforms(); n-- > 0;)
      {
        inputs.push_back(current);
        current = composite->GetNthTransformConstPointer(n)->TransformPoint(current);
      }
      result = gradient;
      for (itk::SizeValueType n = 0; n < inputs.size(); ++n)
      {
        result = Pulled(*composite->GetNthTransformConstPointer(n), inputs[inputs.size() - 1 - n], result);
      }
      return result;
    }
    // ITK has no derivative of splines in the position, and of fields one that is not that of their interpolation.
    if (dynamic_cast<const Spline *>(&transform) != nullptr ||
        dynamic_cast<const DisplacementField *>(&transform) != nullptr)
    {
      constexpr double step = 1e-4; // mm
      for (unsigned d = 0; d < D; ++d)
      {
        Point ahead = point, behind = point;
        ahead[d] += step;
        behind[d] -= step;
        result[d] = gradient * (transform.TransformPoint(ahead) - transform.TransformPoint(behind)) / (2 * step);
      }
      return result;
    }
    typename Transform::JacobianPositionType jacobian;
    transform.ComputeJacobianWithRespectToPosition(point, jacobian);
    for (unsigned d = 0; d < D; ++d)
    {
      result[d] = 0;
      for (unsigned e = 0; e < D; ++e)
      {
        result[d] += jacobian(e, d) * gradient[e];
      }
    }
    return result;
  }
};

} // namespace semreg
