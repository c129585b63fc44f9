// Registers two images rigidly with ITK's registration and semreg's metric: register_rigid FIXED MOVING OUT.tfm
#include "itkSemregMetric.h"

#include "itkEuler3DTransform.h"
#include "itkImageFileReader.h"
#include "itkImageRegistrationMethodv4.h"
#include "itkRegistrationParameterScalesFromPhysicalShift.h"
#include "itkRegularStepGradientDescentOptimizerv4.h"
#include "itkTransformFileWriter.h"

#include <cstdlib>
#include <iostream>

using Image = itk::Image<float, 3>;
using Metric = itk::SemregMetric<3>;
using Transform = itk::Euler3DTransform<double>;
using Optimizer = itk::RegularStepGradientDescentOptimizerv4<double>;
using Registration = itk::ImageRegistrationMethodv4<Image, Image>;

static void
Register(const char * fixed_path, const char * moving_path, const char * out)
{
  const auto fixed = itk::ReadImage<Image>(fixed_path);
  const auto moving = itk::ReadImage<Image>(moving_path);

  auto metric = Metric::New();
  metric->SetSettings("[[models]]\nmodel = \"mind\"\ndistance = [\"l2\"]\n");

  auto             transform = Transform::New();
  const auto       size = fixed->GetLargestPossibleRegion().GetSize();
  Image::IndexType middle;
  for (unsigned d = 0; d < 3; ++d)
  {
    middle[d] = static_cast<itk::IndexValueType>(size[d] / 2);
  }
  Image::PointType centre;
  fixed->TransformIndexToPhysicalPoint(middle, centre);
  transform->SetCenter(centre);

  auto scales = itk::RegistrationParameterScalesFromPhysicalShift<Metric>::New();
  scales->SetMetric(metric);
  auto optimizer = Optimizer::New();
  optimizer->SetScalesEstimator(scales);
  optimizer->SetLearningRate(1.0);
  optimizer->SetRelaxationFactor(0.8);
  optimizer->SetMinimumStepLength(0.01);
  optimizer->SetGradientMagnitudeTolerance(1e-8);
  optimizer->SetNumberOfIterations(60);

  auto registration = Registration::New();
  registration->SetFixedImage(fixed);
  registration->SetMovingImage(moving);
  registration->SetMetric(metric);
  registration->SetOptimizer(optimizer);
  registration->SetInitialTransform(transform);
  registration->InPlaceOn();
  registration->SetNumberOfLevels(2);
  Registration::ShrinkFactorsArrayType    shrink(2);
  Registration::SmoothingSigmasArrayType smoothing(2);
  shrink[0] = 2;
  shrink[1] = 1;
  smoothing[0] = 1;
  smoothing[1] = 0;
  registration->SetShrinkFactorsPerLevel(shrink);
  registration->SetSmoothingSigmasPerLevel(smoothing);
  registration->SetSmoothingSigmasAreSpecifiedInPhysicalUnits(false);
  registration->SetMetricSamplingStrategy(Registration::MetricSamplingStrategyEnum::RANDOM);
  registration->SetMetricSamplingPercentage(0.2);
  registration->MetricSamplingReinitializeSeed(0);
  registration->Update();

  // both at the points of the last level, so that they can be compared
  auto start = Transform::New();
  start->SetCenter(centre);
  metric->SetMovingTransform(start);
  const double before = metric->GetValue();
  metric->SetMovingTransform(transform);
  std::cout << "metric before: " << before << "\nmetric after: " << metric->GetValue() << std::endl;

  auto writer = itk::TransformFileWriterTemplate<double>::New();
  writer->SetFileName(out);
  writer->SetInput(transform);
  writer->Update();
}

int
main(int count, char ** arguments)
{
  if (count != 4)
  {
    std::cerr << "expected three files, got " << count - 1 << ": " << arguments[0] << " FIXED MOVING OUT.tfm\n";
    return 2;
  }
  try
  {
    Register(arguments[1], arguments[2], arguments[3]);
  }
  catch (const itk::ExceptionObject & error)
  {
    std::cerr << error.GetDescription() << std::endl;
    return 2;
  }
  return EXIT_SUCCESS;
}
