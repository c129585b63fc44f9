#!/usr/bin/env cwl-runner
# One pair: cwltool packaging/cwl/semreg-register.cwl --fixed a.nii.gz --moving b.nii.gz
cwlVersion: v1.2
class: CommandLineTool
label: semreg register
doc: Aligns the moving image with the fixed one and deforms it; writes the warped image, the transform and a record.

hints:
  DockerRequirement:
    dockerPull: semreg:0.1.0
requirements:
  InlineJavascriptRequirement: {}
  ResourceRequirement:
    coresMin: $(inputs.threads)
  NetworkAccess:
    networkAccess: false

baseCommand: [semreg, register]
arguments:
  - {prefix: --output, valueFrom: result}
  - {prefix: --log-file, valueFrom: semreg.log}

inputs:
  fixed:
    doc: Fixed image.
    type: File
    inputBinding: {position: 1}
  moving:
    doc: Moving image, brought onto the fixed one.
    type: File
    inputBinding: {position: 2}
  fixed_mask:
    type: File?
    inputBinding: {prefix: --fixed-mask}
  moving_mask:
    type: File?
    inputBinding: {prefix: --moving-mask}
  initial:
    doc: Transform to start from, fixed to moving.
    type: File?
    inputBinding: {prefix: --initial}
  preset:
    doc: Name of settings for common pairs.
    type: string?
    inputBinding: {prefix: --preset}
  config:
    doc: Settings in TOML.
    type: File?
    inputBinding: {prefix: --config}
  settings:
    doc: Settings as name=value, over those of the file.
    type:
      - "null"
      - type: array
        items: string
        inputBinding: {prefix: --set}
  models:
    doc: Folder with fetched models.
    type: Directory?
    inputBinding: {prefix: --models}
  inverse:
    doc: Write the way back too.
    type: boolean
    default: false
    inputBinding: {prefix: --inverse}
  fail_on:
    doc: Fail where the verdict is FAIL, or is REVIEW or FAIL.
    type:
      - "null"
      - type: enum
        symbols: [review, fail]
    inputBinding: {prefix: --fail-on}
  device:
    type: string
    default: cpu
    inputBinding: {prefix: --device}
  threads:
    type: int
    default: 1
    inputBinding: {prefix: --threads}

outputs:
  warped:
    type: File
    outputBinding: {glob: result/warped.nii.gz}
  transform:
    doc: Maps points of the fixed image to points of the moving one.
    type: File
    outputBinding: {glob: result/transform.h5}
  inverse_transform:
    type: File?
    outputBinding: {glob: result/inverse.h5}
  record:
    type: File
    outputBinding: {glob: result/record.json}
  report:
    type: File
    outputBinding: {glob: result/report.html}
  log:
    type: File
    outputBinding: {glob: semreg.log}

successCodes: [0]
permanentFailCodes: [2, 3, 70]
