process SEMREG_REGISTER {
    tag "${meta.id}"
    label 'process_medium'

    conda "${moduleDir}/environment.yml"
    container "semreg:0.1.0"

    input:
    tuple val(meta), path(fixed, stageAs: 'fixed/*'), path(moving, stageAs: 'moving/*')
    path config

    output:
    tuple val(meta), path("${prefix}/warped.nii.gz"), emit: warped
    tuple val(meta), path("${prefix}/transform.h5"), emit: transform
    tuple val(meta), path("${prefix}/inverse.h5"), emit: inverse, optional: true
    tuple val(meta), path("${prefix}/record.json"), emit: record
    tuple val(meta), path("${prefix}/report.html"), emit: report, optional: true
    path "versions.yml", emit: versions

    when:
    task.ext.when == null || task.ext.when

    script:
    def args = task.ext.args ?: ''
    prefix = task.ext.prefix ?: "${meta.id}"
    def settings = config ? "--config ${config}" : ''
    """
    semreg register \\
        ${fixed} \\
        ${moving} \\
        --output ${prefix} \\
        --threads ${task.cpus} \\
        ${settings} \\
        ${args}

    cat <<-END_VERSIONS > versions.yml
    "${task.process}":
        semreg: \$(semreg --version | cut -d' ' -f2)
    END_VERSIONS
    """

    stub:
    prefix = task.ext.prefix ?: "${meta.id}"
    """
    mkdir ${prefix}
    touch ${prefix}/warped.nii.gz ${prefix}/transform.h5 ${prefix}/record.json ${prefix}/report.html

    cat <<-END_VERSIONS > versions.yml
    "${task.process}":
        semreg: \$(semreg --version | cut -d' ' -f2)
    END_VERSIONS
    """
}
