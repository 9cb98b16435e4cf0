{{/* The name of an image: (list root override). */}}
{{- define "daskflow.image" -}}
{{- $root := index . 0 -}}
{{- $image := mergeOverwrite (deepCopy $root.Values.image) (index . 1) -}}
{{- printf "%s:%s" $image.repository (default $root.Chart.AppVersion $image.tag) -}}
{{- end -}}

{{/* Variables of every container, as a dictionary: where the scheduler is, certificates, and what the values say. */}}
{{- define "daskflow.variables" -}}
{{- $variables := dict "HOME" "/tmp" "USER" "daskflow" "DASK_SCHEDULER_ADDRESS" (include "daskflow.schedulerAddress" .) -}}
{{- if .Values.tls.enabled -}}
{{- $_ := set $variables "DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION" "True" -}}
{{- $_ := set $variables "DASK_DISTRIBUTED__COMM__TLS__CA_FILE" "/etc/daskflow/tls/ca.crt" -}}
{{- range list "SCHEDULER" "WORKER" "CLIENT" -}}
{{- $_ := set $variables (printf "DASK_DISTRIBUTED__COMM__TLS__%s__CERT" .) "/etc/daskflow/tls/tls.crt" -}}
{{- $_ := set $variables (printf "DASK_DISTRIBUTED__COMM__TLS__%s__KEY" .) "/etc/daskflow/tls/tls.key" -}}
{{- end -}}
{{- end -}}
{{- range .Values.secrets.files -}}
{{- if .variable -}}
{{- $_ := set $variables .variable (printf "%s/%s" .mountPath .key) -}}
{{- end -}}
{{- end -}}
{{- mergeOverwrite $variables .Values.env | toJson -}}
{{- end -}}

{{/* A list of env entries: (list root dictionary-of-own-variables). */}}
{{- define "daskflow.env" -}}
{{- $variables := mergeOverwrite (include "daskflow.variables" (index . 0) | fromJson) (index . 1) -}}
{{- range $name, $value := $variables }}
- name: {{ $name }}
  value: {{ $value | quote }}
{{- end }}
{{- end -}}

{{/* What every container has beside its command, variables and resources: (list root image). */}}
{{- define "daskflow.container" -}}
{{- $root := index . 0 -}}
image: {{ include "daskflow.image" . | quote }}
imagePullPolicy: {{ $root.Values.image.pullPolicy }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities:
    drop: [ALL]
{{- with $root.Values.secrets.env }}
envFrom:
{{- range . }}
  - secretRef:
      name: {{ . }}
{{- end }}
{{- end }}
volumeMounts:
  - name: scratch
    mountPath: /tmp
{{- if $root.Values.tls.enabled }}
  - name: tls
    mountPath: /etc/daskflow/tls
    readOnly: true
{{- end }}
{{- range $index, $file := $root.Values.secrets.files }}
  - name: secret-{{ $index }}
    mountPath: {{ $file.mountPath }}
    readOnly: true
{{- end }}
{{- range $index, $claim := $root.Values.storage }}
  - name: storage-{{ $index }}
    mountPath: {{ $claim.mountPath }}
    readOnly: {{ default false $claim.readOnly }}
{{- end }}
{{- end -}}

{{/* Requests and limits, as text, which the operator's schema wants. */}}
{{- define "daskflow.resources" -}}
{{- range $kind, $amounts := . }}
{{ $kind }}:
{{- range $name, $amount := $amounts }}
  {{ $name }}: {{ $amount | quote }}
{{- end }}
{{- end }}
{{- end -}}

{{/* What every pod has beside its containers: (list root placement), where placement has nodeSelector and the like. */}}
{{- define "daskflow.pod" -}}
{{- $root := index . 0 -}}
{{- $placement := index . 1 -}}
serviceAccountName: {{ include "daskflow.serviceAccount" $root }}
automountServiceAccountToken: false
enableServiceLinks: false
securityContext:
  {{- toYaml $root.Values.podSecurityContext | nindent 2 }}
{{- with $root.Values.image.pullSecrets }}
imagePullSecrets:
{{- range . }}
  - name: {{ . }}
{{- end }}
{{- end }}
{{- with $placement.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $placement.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $placement.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* The volumes of every pod. */}}
{{- define "daskflow.volumes" -}}
- name: scratch
  emptyDir:
    sizeLimit: {{ .Values.scratch.sizeLimit | quote }}
{{- if .Values.tls.enabled }}
- name: tls
  secret:
    secretName: {{ include "daskflow.tlsSecret" . }}
    defaultMode: 0440
{{- end }}
{{- range $index, $file := .Values.secrets.files }}
- name: secret-{{ $index }}
  secret:
    secretName: {{ $file.secret }}
    defaultMode: 0440
{{- end }}
{{- range $index, $claim := .Values.storage }}
- name: storage-{{ $index }}
  persistentVolumeClaim:
    claimName: {{ $claim.claim }}
    readOnly: {{ default false $claim.readOnly }}
{{- end }}
{{- end -}}

{{/* Annotations of pods, so that new certificates from the values restart them. */}}
{{- define "daskflow.podAnnotations" -}}
{{- $annotations := deepCopy .Values.podAnnotations -}}
{{- if and .Values.tls.enabled .Values.tls.certificate -}}
{{- $_ := set $annotations "daskflow/certificates" (printf "%s%s%s" .Values.tls.ca .Values.tls.certificate .Values.tls.key | sha256sum | trunc 16) -}}
{{- end -}}
{{- with $annotations -}}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end -}}
{{- end -}}
