{{/* The name of everything, at most 40 characters long: names, services and the operator add to it. */}}
{{- define "daskflow.fullname" -}}
{{- $name := ternary .Release.Name (printf "%s-daskflow" .Release.Name) (contains "daskflow" .Release.Name) -}}
{{- if gt (len $name) 40 -}}
{{- printf "%s-%s" (trunc 31 $name | trimSuffix "-") (sha256sum $name | trunc 8) -}}
{{- else -}}
{{- $name -}}
{{- end -}}
{{- end -}}

{{- define "daskflow.selectorLabels" -}}
app.kubernetes.io/name: daskflow
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "daskflow.labels" -}}
{{ include "daskflow.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{/* Labels of a pod: (list root component), or (list root "worker" group). */}}
{{- define "daskflow.podLabels" -}}
{{- $root := index . 0 -}}
{{ include "daskflow.selectorLabels" $root }}
app.kubernetes.io/component: {{ index . 1 }}
{{- if gt (len .) 2 }}
daskflow/worker-group: {{ index . 2 }}
{{- end }}
{{- end -}}

{{- define "daskflow.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "daskflow.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "daskflow.schedulerAddress" -}}
{{- printf "%s://%s-scheduler.%s.svc:8786" (ternary "tls" "tcp" .Values.tls.enabled) (include "daskflow.fullname" .) .Release.Namespace -}}
{{- end -}}

{{- define "daskflow.tlsSecret" -}}
{{- default (printf "%s-tls" (include "daskflow.fullname" .)) .Values.tls.existingSecret -}}
{{- end -}}

{{- define "daskflow.jupyterSecret" -}}
{{- default (printf "%s-jupyter" (include "daskflow.fullname" .)) .Values.jupyter.existingSecret -}}
{{- end -}}

{{- define "daskflow.hasDriver" -}}
{{- if or .Values.driver.command .Values.driver.recipe -}}true{{- end -}}
{{- end -}}
