// Prints, for a rigid transform and a B-spline, a slope by the metric's derivative and one by central differences.
#include "itkSemregMetric.h"

#include "itkBSplineTransform.h"
#include "itkEuler3DTransform.h"
#include "itkImageFileReader.h"
#include "itkPointSet.h"

#include <iostream>
#include <random>

using Image = itk::Image<float, 3>;
using Metric = itk::SemregMetric<3>;
using Euler = itk::Euler3DTransform<double>;
using Spline = itk::BSplineTransform<double, 3, 3>;

static void
Compare(const char * name, Metric & metric, double size, double step)
{
  std::mt19937                           random(7);
  std::uniform_real_distribution<double> draw(-1, 1);
  const auto                             count = metric.GetNumberOfParameters();
  itk::Array<double>                     direction(count);
  for (unsigned p = 0; p < count; ++p)
  {
    direction[p] = size * draw(random);
  }
  double             value = 0;
  itk::Array<double> derivative;
  metric.GetValueAndDerivative(value, derivative);
  const auto at = [&](double factor) {
    metric.UpdateTransformParameters(direction, factor);
    const double found = metric.GetValue();
    metric.UpdateTransformParameters(direction, -factor);
    return found;
  };
  // the metric hands over the direction of descent
  std::cout << name << ' ' << -dot_product(derivative, direction) << ' ' << (at(step) - at(-step)) / (2 * step)
            << std::endl;
}

int
main(int, char ** arguments)
{
  try
  {
    const auto fixed = itk::ReadImage<Image>(arguments[1]);
    const auto moving = itk::ReadImage<Image>(arguments[2]);
    const auto size = fixed->GetLargestPossibleRegion().GetSize();

    // points well inside: none enters or leaves the moving image
    using Points = Metric::FixedSampledPointSetType;
    auto                                   points = Points::New();
    std::mt19937                           random(3);
    std::uniform_real_distribution<double> draw(0.35, 0.65);
    for (unsigned i = 0; i < 2000; ++i)
    {
      itk::ContinuousIndex<double, 3> index;
      for (unsigned d = 0; d < 3; ++d)
      {
        index[d] = draw(random) * static_cast<double>(size[d]);
      }
      Points::PointType point;
      fixed->TransformContinuousIndexToPhysicalPoint(index, point);
      points->SetPoint(i, point);
    }

    auto euler = Euler::New();
    euler->SetRotation(0.03, -0.02, 0.05);
    auto                             spline = Spline::New();
    Spline::PhysicalDimensionsType   extent;
    Spline::MeshSizeType             mesh;
    mesh.Fill(3);
    for (unsigned d = 0; d < 3; ++d)
    {
      extent[d] = fixed->GetSpacing()[d] * static_cast<double>(size[d] - 1);
    }
    spline->SetTransformDomainOrigin(fixed->GetOrigin());
    spline->SetTransformDomainDirection(fixed->GetDirection());
    spline->SetTransformDomainPhysicalDimensions(extent);
    spline->SetTransformDomainMeshSize(mesh);
    spline->SetIdentity();

    auto metric = Metric::New();
    metric->SetFixedImage(fixed);
    metric->SetMovingImage(moving);
    metric->SetVirtualDomainFromImage(fixed);
    metric->SetFixedSampledPointSet(points);
    metric->SetUseSampledPointSet(true);
    metric->SetMovingTransform(euler);
    metric->Initialize();
    Compare("Euler", *metric, 0.01, 1e-3);
    metric->SetMovingTransform(spline);
    metric->Initialize();
    Compare("BSpline", *metric, 1.0, 1e-3);
  }
  catch (const itk::ExceptionObject & error)
  {
    std::cerr << error.GetDescription() << std::endl;
    return 2;
  }
  return 0;
}
