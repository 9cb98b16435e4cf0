{{/* All that a Job consists of. */}}
{{- define "daskflow.driverSpec" -}}
backoffLimit: {{ int .Values.driver.backoffLimit }}
{{- if semverCompare ">=1.26-0" .Capabilities.KubeVersion.Version }}
# An eviction does not count. Status 2 is final: blocks failed, or the command line is wrong.
podFailurePolicy:
  rules:
    - action: Ignore
      onPodConditions:
        - type: DisruptionTarget
          status: "True"
    - action: FailJob
      onExitCodes:
        containerName: driver
        operator: In
        values: [2]
{{- end }}
template:
  metadata:
    labels:
      {{- include "daskflow.podLabels" (list . "driver") | nindent 6 }}
      {{- with .Values.podLabels }}
      {{- toYaml . | nindent 6 }}
      {{- end }}
    {{- with include "daskflow.podAnnotations" . }}
    {{- . | nindent 4 }}
    {{- end }}
  spec:
    {{- include "daskflow.driverPod" . | nindent 4 }}
{{- end -}}

{{/* The pod of the driver. Each start resumes the job from its directory. */}}
{{- define "daskflow.driverPod" -}}
{{- if and .Values.driver.command .Values.driver.recipe -}}
{{- fail "driver.command and driver.recipe are two ways to say what the driver runs: give one of them" -}}
{{- end -}}
{{- if and .Values.driver.command .Values.driver.args -}}
{{- fail "driver.args are the words after driver.recipe: append them to driver.command instead" -}}
{{- end -}}
{{ include "daskflow.pod" (list . .Values.driver) }}
restartPolicy: Never
terminationGracePeriodSeconds: {{ int .Values.driver.terminationGracePeriodSeconds }}
initContainers:
  - name: wait-for-workers
    {{- include "daskflow.container" (list . dict) | nindent 4 }}
    command: [python, -c]
    args:
      - |
        import os
        from distributed import Client
        workers, seconds = int(os.environ["DASKFLOW_WORKERS"]), int(os.environ["DASKFLOW_SECONDS"])
        with Client(timeout=seconds) as client:
            client.wait_for_workers(workers, timeout=seconds)
    env:
      {{- $waiting := dict "DASKFLOW_WORKERS" (toString (int .Values.driver.waitForWorkers)) "DASKFLOW_SECONDS" (toString (int .Values.driver.waitSeconds)) }}
      {{- include "daskflow.env" (list . $waiting) | trim | nindent 6 }}
    resources:
      {{- include "daskflow.resources" .Values.driver.resources | trim | nindent 6 }}
containers:
  - name: driver
    {{- include "daskflow.container" (list . dict) | nindent 4 }}
    {{- if .Values.driver.recipe }}
      - name: recipe
        mountPath: /etc/daskflow/recipe
        readOnly: true
    command: [python, /etc/daskflow/recipe/recipe.py]
    {{- with .Values.driver.args }}
    args:
      {{- toYaml . | nindent 6 }}
    {{- end }}
    {{- else }}
    command: [daskflow, --cluster, $(DASK_SCHEDULER_ADDRESS)]
    args:
      {{- toYaml .Values.driver.command | nindent 6 }}
    {{- end }}
    env:
      {{- include "daskflow.env" (list . (dict "PYTHONUNBUFFERED" "1")) | trim | nindent 6 }}
    resources:
      {{- include "daskflow.resources" .Values.driver.resources | trim | nindent 6 }}
volumes:
  {{- include "daskflow.volumes" . | nindent 2 }}
  {{- if .Values.driver.recipe }}
  - name: recipe
    configMap:
      name: {{ include "daskflow.fullname" . }}-recipe
  {{- end }}
{{- end -}}
